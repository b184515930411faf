//! One hostile connection of each sort, made again as soon as the server ended it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use lapwing_net::authority::{Authority, Usage};
use lapwing_net::clock;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, Plane};
use lapwing_protocol::id::{DeploymentId, LogId, SensorId};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustls_pki_types::ServerName;
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::frames;
use super::wait::{pause, within};

/// Longer than a handshake takes among ten thousand others on a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);
/// Networks (/24) that the connections come from.
const NETWORKS: usize = 40;

/// What a hostile connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// TCP alone, and no byte.
    HalfOpen,
    /// The first half of a ClientHello.
    HalfHello,
    /// Bytes that are no TLS.
    Garbage,
    /// TLS as a sensor, without a certificate.
    NoCertificate,
    /// TLS without a certificate on the HTTP plane, and a request that drips.
    Stranger,
    /// A sensor that announces a frame over the limit.
    TooLarge,
    /// A sensor whose frame comes by one byte a second.
    Drip,
    /// A sensor that asks and asks, and never reads.
    NeverReads,
    /// A sensor that says Hello and then nothing.
    Silent,
    /// A sensor that says Hello again and again, with new logs.
    Hellos,
    /// A sensor that floods pings and reads the answers.
    Pings,
    /// A sensor that floods marks, and then says what only a server may.
    Bogus,
    /// A sensor whose chunks are bombs.
    Bombs,
}

impl Sort {
    pub(super) const ALL: [Self; 13] = [
        Self::HalfOpen,
        Self::HalfHello,
        Self::Garbage,
        Self::NoCertificate,
        Self::Stranger,
        Self::TooLarge,
        Self::Drip,
        Self::NeverReads,
        Self::Silent,
        Self::Hellos,
        Self::Pings,
        Self::Bogus,
        Self::Bombs,
    ];

    pub(super) fn of(number: usize) -> Self {
        Self::ALL[number % Self::ALL.len()]
    }
}

/// What all hostile connections share.
pub(super) struct Attack {
    pub(super) authority: Authority,
    pub(super) deployment: DeploymentId,
    pub(super) at: SocketAddrV4,
    /// Connections that TCP took.
    pub(super) opened: AtomicUsize,
    /// Of those, the ones whose handshake was done.
    pub(super) shaken: AtomicUsize,
    /// Of those, the ones that were greeted.
    pub(super) greeted: AtomicUsize,
    /// Hostile peers that connected at least once.
    pub(super) begun: AtomicUsize,
    /// Connections that stand.
    pub(super) standing: AtomicUsize,
}

type Stream = TlsStream<Async<TcpStream>>;

impl Attack {
    pub(super) fn sensor(number: usize) -> SensorId {
        let mut id = [0x66; 16];
        id[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
        SensorId(id)
    }

    /// A client that the server takes for the sensor of that number.
    pub(super) fn sensor_tls(&self, number: usize) -> ClientTls {
        let identity = PeerIdentity::of_sensor(self.deployment, Self::sensor(number));
        let leaf = self.authority.issue(clock::unix_ms(), &identity, Usage::Client, DAY);
        let leaf = leaf.expect("a certificate");
        let ca = self.authority.certificate_pem();
        let credentials = Credentials::from_pem(ca, &leaf.certificate_pem, &leaf.key_pem);
        let expected = ExpectedPeer::of_role(self.deployment, Role::Detection);
        ClientTls::new(&credentials.expect("credentials"), Plane::Sensor, expected).expect("TLS")
    }

    fn anonymous_tls(&self, plane: Plane) -> ClientTls {
        let expected = ExpectedPeer::of_role(self.deployment, Role::Detection);
        ClientTls::anonymous_from_pem(self.authority.certificate_pem(), plane, expected)
            .expect("TLS")
    }

    /// Connects and misbehaves, again and again.
    pub(super) async fn misbehave(&self, number: usize) {
        let sort = Sort::of(number);
        let tls = match sort {
            Sort::HalfOpen | Sort::HalfHello | Sort::Garbage => None,
            Sort::NoCertificate => Some(self.anonymous_tls(Plane::Sensor)),
            Sort::Stranger => Some(self.anonymous_tls(Plane::Http)),
            _ => Some(self.sensor_tls(number)),
        };
        for round in 0_u64.. {
            if let Ok(socket) = dial(source(number), self.at).await {
                self.opened.fetch_add(1, Ordering::Relaxed);
                self.begun.fetch_add(usize::from(round == 0), Ordering::Relaxed);
                self.standing.fetch_add(1, Ordering::Relaxed);
                match &tls {
                    None => raw(sort, socket).await,
                    Some(tls) => self.encrypted((number, round), tls, socket).await,
                }
                self.standing.fetch_sub(1, Ordering::Relaxed);
            }
            pause(Duration::from_millis(500 + number as u64 * 7 % 1_000)).await;
        }
    }

    async fn encrypted(
        &self,
        (number, round): (usize, u64),
        tls: &ClientTls,
        socket: Async<TcpStream>,
    ) {
        let name = ServerName::IpAddress(std::net::IpAddr::V4(*self.at.ip()).into());
        let shaking = TlsConnector::from(tls.config()).connect(name, socket);
        let Some(Ok(mut stream)) = within(HANDSHAKE, shaking).await else { return };
        self.shaken.fetch_add(1, Ordering::Relaxed);
        match Sort::of(number) {
            Sort::NoCertificate => until_closed(&mut stream).await,
            Sort::Stranger => {
                drip(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: aaaaaaaaaaaaa").await;
            }
            Sort::TooLarge => {
                let _ = say(&mut stream, &frames::announced(u16::MAX)).await;
                until_closed(&mut stream).await;
            }
            _ => {
                let ids = (self.deployment, Self::sensor(number));
                let _ = self.session((number, round), ids, &mut stream).await;
            }
        }
    }

    /// Speaks as a sensor that was greeted.
    async fn session(
        &self,
        (number, round): (usize, u64),
        ids: (DeploymentId, SensorId),
        stream: &mut Stream,
    ) -> std::io::Result<()> {
        let mut log = u128::from(round) << 64;
        let mut hello = || {
            log += 1;
            frames::hello(ids, LogId((log + 1).to_be_bytes()))
        };
        say(stream, &hello()).await?;
        let mut buffer = vec![0; 16_384];
        if stream.read(&mut buffer).await? == 0 {
            return Ok(());
        }
        self.greeted.fetch_add(1, Ordering::Relaxed);
        match Sort::of(number) {
            Sort::Drip => {
                drip(stream, &[frames::announced(600), vec![0; 600]].concat()).await;
            }
            Sort::NeverReads => {
                let pings = frames::pings();
                loop {
                    say(stream, &pings).await?;
                }
            }
            Sort::Hellos => loop {
                say(stream, &hello()).await?;
                if stream.read(&mut buffer).await? == 0 {
                    return Ok(());
                }
            },
            Sort::Pings => {
                let pings = frames::pings();
                loop {
                    say(stream, &pings).await?;
                    if stream.read(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
            }
            Sort::Bogus => {
                let marks = frames::marks();
                for _ in 0..100 {
                    say(stream, &marks).await?;
                }
                say(stream, &frames::bogus_ack()).await?;
                until_closed(stream).await;
            }
            Sort::Bombs => {
                for seq in 1..=400 {
                    say(stream, &frames::bomb(seq)).await?;
                    if seq % 2 == 0 && stream.read(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
                until_closed(stream).await;
            }
            // Half a frame, which costs its whole buffer, and then nothing.
            _ => {
                say(stream, &[frames::announced(16_000), vec![0; 12_000]].concat()).await?;
                until_closed(stream).await;
            }
        }
        Ok(())
    }
}

/// Where a connection comes from: an address of a network of its own among `NETWORKS`.
fn source(number: usize) -> Ipv4Addr {
    let host = (number / NETWORKS % 250) as u8 + 1;
    Ipv4Addr::new(127, 66, (number % NETWORKS) as u8, host)
}

/// Connects from an address of this machine's loopback.
pub(super) async fn dial(from: Ipv4Addr, to: SocketAddrV4) -> std::io::Result<Async<TcpStream>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrV4::new(from, 0))?;
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = Async::new_nonblocking(TcpStream::from(socket))?;
    let connected = within(HANDSHAKE, stream.writable()).await;
    connected.ok_or(std::io::ErrorKind::TimedOut)??;
    match stream.get_ref().take_error()? {
        None => Ok(stream),
        Some(error) => Err(error),
    }
}

async fn raw(sort: Sort, mut socket: Async<TcpStream>) {
    let bytes: &[u8] = match sort {
        Sort::HalfHello => &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3],
        Sort::Garbage => &[0xff; 512],
        _ => &[],
    };
    let _ = socket.write_all(bytes).await;
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

async fn say(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// One byte a second, until the server has enough of it or all is said.
async fn drip(stream: &mut Stream, bytes: &[u8]) {
    for byte in bytes {
        if say(stream, &[*byte]).await.is_err() {
            return;
        }
        pause(Duration::from_secs(1)).await;
    }
    until_closed(stream).await;
}

async fn until_closed(stream: &mut Stream) {
    let mut buffer = [0; 4_096];
    while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
}

/// How long a sensor that was never here takes to be greeted, however often it must try.
pub(super) async fn newcomer(attack: &Attack) -> Duration {
    let number = usize::MAX / 2;
    let (began, tls) = (std::time::Instant::now(), attack.sensor_tls(number));
    let name = ServerName::IpAddress(std::net::IpAddr::V4(*attack.at.ip()).into());
    let ids = (attack.deployment, Attack::sensor(number));
    loop {
        let attempt = async {
            let socket = dial(Ipv4Addr::new(127, 77, 7, 7), attack.at).await?;
            let connector = TlsConnector::from(tls.config());
            let mut stream = connector.connect(name.clone(), socket).await?;
            say(&mut stream, &frames::hello(ids, LogId([7; 16]))).await?;
            let mut head = [0; 4];
            stream.read_exact(&mut head).await?;
            std::io::Result::Ok(u16::from_le_bytes([head[2], head[3]]) == 2)
        };
        if let Some(Ok(true)) = within(HANDSHAKE, attempt).await {
            return began.elapsed();
        }
        pause(Duration::from_millis(200)).await;
    }
}

/// The address of the sensors' port.
pub(super) fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("the platform is bound to 127.0.0.1"),
    }
}
