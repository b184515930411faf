//! A small HTTPS client: one authority pinned, IP addresses allowed, one request a connection.
//!
//! Not here: cookies, redirects, proxies, pooling. Invariants: the server is known by its authority
//! and the URI in its certificate; answers are bounded in bytes, and in time up to their head.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use smol::Timer;
use smol_hyper::rt::FuturesIo;

use super::body::{BodyError, client_body_error};
use crate::limits::{CONNECT_TIME, HTTP_ANSWER_BYTES_MAX, HTTP_ANSWER_TIME};
use crate::tls::{ClientTls, HandshakeError, connect};

/// Asks one kind of server.
#[derive(Debug, Clone)]
pub struct Client {
    tls: ClientTls,
    token: Option<String>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header lines.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An answer whose body is still coming: an event stream or a long export.
pub struct Answering {
    /// Its status.
    pub status: StatusCode,
    /// Its header lines.
    pub headers: HeaderMap,
    body: Incoming,
    driver: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpError {
    /// The address is not `https://HOST[:PORT]/PATH`.
    BadUrl(String),
    /// The host has no address.
    UnknownHost(String),
    /// The server could not be reached, or is not who it should be.
    Connect(HandshakeError),
    /// The server does not speak HTTP rightly, or closed too early.
    Exchange(hyper::Error),
    /// The body could not be read.
    Body(BodyError),
    /// The answer did not begin in time.
    TimedOut,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl(url) => write!(f, "{url:?} is no address; write https://HOST:PORT/PATH"),
            Self::UnknownHost(host) => {
                write!(f, "the host {host:?} has no address; check its spelling")
            }
            Self::Connect(error) => error.fmt(f),
            Self::Exchange(error) => write!(f, "the server broke off: {error}"),
            Self::Body(error) => error.fmt(f),
            Self::TimedOut => f.write_str("the server did not answer in time"),
        }
    }
}

impl std::error::Error for HttpError {}

impl Client {
    /// A client without a token.
    #[must_use]
    pub fn new(tls: ClientTls) -> Self {
        Self { tls, token: None }
    }

    /// The same, presenting a bearer token with every request.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// GET.
    ///
    /// # Errors
    /// There is no whole answer; a status of refusal is an answer.
    pub async fn get(&self, url: &str) -> Result<Answer, HttpError> {
        self.send(Method::GET, url, &[], Vec::new()).await
    }

    /// POST.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(
        &self,
        url: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Answer, HttpError> {
        self.send(Method::POST, url, &[("content-type", content_type)], body).await
    }

    /// Any method with any header lines.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, HttpError> {
        let Answering { status, headers, body, driver } =
            self.open(method, url, headers, body).await?;
        let collected = async {
            let body = Limited::new(body, HTTP_ANSWER_BYTES_MAX).collect().await;
            body.map_err(|error| HttpError::Body(client_body_error(error)))
        };
        let body = match driver {
            Some(driver) => smol::future::or(collected, never_after(driver)).await?,
            None => collected.await?,
        };
        Ok(Answer { status, headers, body: body.to_bytes().to_vec() })
    }

    /// Any method; the body is left to come, with [`Answering::next`].
    ///
    /// # Errors
    /// The answer's head does not come.
    pub async fn open(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answering, HttpError> {
        let bad_url = || HttpError::BadUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad_url())?;
        let authority = uri.authority().ok_or_else(bad_url)?;
        if uri.scheme_str() != Some("https") {
            return Err(bad_url());
        }
        let mut request = Request::builder()
            .method(method)
            .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, authority.as_str());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|_| bad_url())?;
        let address = resolve(authority.host(), authority.port_u16().unwrap_or(443)).await?;
        within(HTTP_ANSWER_TIME, self.exchange(address, request)).await
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        request: Request<Full<Bytes>>,
    ) -> Result<Answering, HttpError> {
        let stream = connect(address, &self.tls, CONNECT_TIME).await.map_err(HttpError::Connect)?;
        let (mut sender, connection) =
            http1::handshake(FuturesIo::new(stream)).await.map_err(HttpError::Exchange)?;
        let mut driver: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async {
            // What went wrong reaches the request or the body too.
            let _ = connection.await;
        });
        let response = smol::future::or(sender.send_request(request), never_after(&mut driver))
            .await
            .map_err(HttpError::Exchange)?;
        let (head, body) = response.into_parts();
        Ok(Answering { status: head.status, headers: head.headers, body, driver: Some(driver) })
    }
}

impl Answering {
    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        loop {
            let frame = self.body.frame();
            let frame = match self.driver.as_mut() {
                Some(driver) => smol::future::or(frame, never_after(driver)).await,
                None => frame.await,
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(HttpError::Body(BodyError::Broken(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data.to_vec()));
                    }
                }
            }
        }
    }
}

/// Drives the connection beside whatever waits for it; its end alone decides nothing.
async fn never_after<T>(driver: impl Future<Output = ()>) -> T {
    driver.await;
    std::future::pending().await
}

async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    smol::future::or(work, async {
        Timer::after(time).await;
        Err(HttpError::TimedOut)
    })
    .await
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr, HttpError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    let unknown = || HttpError::UnknownHost(host.to_owned());
    let addresses = smol::net::resolve((host, port)).await.map_err(|_| unknown())?;
    addresses.into_iter().next().ok_or_else(unknown)
}
