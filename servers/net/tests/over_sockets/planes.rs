//! Who gets in, on which plane, and what becomes of who misbehaves before or during the handshake.

use lapwing_net::authority::{self, Authority, Usage};
use lapwing_net::clock;
use lapwing_net::config;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::limits::ListenerLimits;
use lapwing_net::tls::{
    ClientTls, Credentials, ExpectedPeer, HandshakeError, PeerMismatch, Plane, key_digest,
};

use crate::greeting::{ALL_PLANES, Seen, client, greet, greeter, serve};
use crate::support::{DAY, Deployment, Setup, run};
use crate::wait::until;

#[test]
fn one_listener_serves_every_plane_by_alpn_and_knows_who_is_there() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let sensor = deployment.credentials(Role::Sensor, 7);
        let server = deployment.credentials(Role::Webapp, 8);
        for (credentials, plane) in [
            (&sensor, Plane::Enrol),
            (&sensor, Plane::Sensor),
            (&server, Plane::Peer),
            (&server, Plane::Http),
        ] {
            greet(&serving, &client(credentials, plane)).await.unwrap();
        }
        let expected = [
            (Plane::Enrol, None),
            (Plane::Sensor, Some(deployment.identity(Role::Sensor, 7))),
            (Plane::Peer, Some(deployment.identity(Role::Webapp, 8))),
            (Plane::Http, None),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
        until("all are closed", || {
            ALL_PLANES.iter().all(|plane| serving.metrics.open(*plane) == 0)
        })
        .await;
    });
}

#[test]
fn a_plane_that_is_not_served_is_refused_with_an_alert() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) =
            serve(&executor, &deployment, &[Plane::Peer], ListenerLimits::default());
        let sensor = deployment.credentials(Role::Sensor, 7);
        let error = greet(&serving, &client(&sensor, Plane::Sensor)).await.unwrap_err();
        assert!(matches!(error, HandshakeError::NoCommonPlane), "{error}");
        assert!(seen.lock().unwrap().is_empty());
        until("it is counted", || serving.metrics.refused_for("no_common_plane") == 1).await;
    });
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        for plane in [Plane::Sensor, Plane::Peer] {
            let ca = deployment.authority.certificate_pem();
            let tls = ClientTls::anonymous_from_pem(ca, plane, ExpectedPeer::default()).unwrap();
            let error = greet(&serving, &tls).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "the peer refused us: it requires a certificate and we showed none"
            );
        }
        until("both are counted", || serving.metrics.refused_for("no_certificate") == 2).await;
        assert!(seen.lock().unwrap().is_empty());
    });
}

#[test]
fn a_certificate_from_another_authority_is_refused() {
    run(|executor| async move {
        let ours = Deployment::new(1);
        let theirs = Deployment::new(1);
        let (serving, seen) = serve(&executor, &ours, &ALL_PLANES, ListenerLimits::default());
        let leaf = theirs
            .authority
            .issue(clock::unix_ms(), &ours.identity(Role::Sensor, 7), Usage::Client, DAY)
            .unwrap();
        let stranger = Credentials::from_pem(
            ours.authority.certificate_pem(),
            &leaf.certificate_pem,
            &leaf.key_pem,
        )
        .unwrap();
        let error = greet(&serving, &client(&stranger, Plane::Sensor)).await.unwrap_err();
        assert!(matches!(error, HandshakeError::RefusedByPeer(_)), "{error}");
        until("it is counted", || serving.metrics.refused_for("other_authority") == 1).await;
        assert!(seen.lock().unwrap().is_empty());
    });
}

#[test]
fn a_server_under_another_authority_is_refused_by_the_client() {
    run(|executor| async move {
        let theirs = Deployment::new(1);
        let (serving, _) = serve(&executor, &theirs, &ALL_PLANES, ListenerLimits::default());
        let ours = Deployment::new(1).credentials(Role::Sensor, 7);
        let error = greet(&serving, &client(&ours, Plane::Sensor)).await.unwrap_err();
        assert_eq!(error.to_string(), "the peer's certificate is from another CA");
    });
}

#[test]
fn an_expired_certificate_is_refused_with_the_skew() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let credentials =
            deployment.credentials_at(clock::unix_ms() - 3 * 86_400_000, Role::Detection, 1);
        let setup = Setup {
            executor: &executor,
            credentials,
            deployment: deployment.id,
            planes: &[Plane::Http],
            limits: ListenerLimits::default(),
        };
        let serving = setup.serve(greeter(&Seen::default()));
        let ours = deployment.credentials(Role::Webapp, 7);
        let error = greet(&serving, &client(&ours, Plane::Http)).await.unwrap_err();
        let HandshakeError::Expired { skew_s } = error else { panic!("{error}") };
        assert!((2 * 86_400 - 60..2 * 86_400 + 60).contains(&skew_s), "{skew_s}");
    });
}

#[test]
fn each_plane_takes_only_its_roles_and_its_deployment() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let sensor = deployment.credentials(Role::Sensor, 7);
        let server = deployment.credentials(Role::Webapp, 8);
        let other = Deployment { id: Deployment::new(2).id, authority: deployment.authority };
        let elsewhere = other.credentials(Role::Sensor, 9);
        for (credentials, plane) in
            [(&sensor, Plane::Peer), (&server, Plane::Sensor), (&elsewhere, Plane::Sensor)]
        {
            let error = greet(&serving, &client(credentials, plane)).await.unwrap_err();
            assert!(matches!(error, HandshakeError::RefusedByPeer(_)), "{error}");
        }
        until("all are counted", || serving.metrics.refused_for("mismatch") == 3).await;
        assert!(seen.lock().unwrap().is_empty());
    });
}

#[test]
fn a_client_checks_the_role_and_id_it_expects() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, _) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let ours = deployment.credentials(Role::Webapp, 8);
        let right = ExpectedPeer {
            id: Some([1; 16]),
            ..ExpectedPeer::of_role(deployment.id, Role::Detection)
        };
        let wrong = [
            ExpectedPeer::of_role(deployment.id, Role::Registration),
            ExpectedPeer::of_role(Deployment::new(2).id, Role::Detection),
            ExpectedPeer { id: Some([2; 16]), ..right },
        ];
        greet(&serving, &ClientTls::new(&ours, Plane::Peer, right).unwrap()).await.unwrap();
        for expected in wrong {
            let tls = ClientTls::new(&ours, Plane::Peer, expected).unwrap();
            let error = greet(&serving, &tls).await.unwrap_err();
            let found = deployment.identity(Role::Detection, 1);
            let HandshakeError::Mismatch(mismatch) = error else { panic!("{error}") };
            assert_eq!(mismatch, PeerMismatch::OtherPeer { expected, found });
        }
    });
}

#[test]
fn a_signed_request_gives_only_its_key_away() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let (serving, seen) = serve(&executor, &deployment, &ALL_PLANES, ListenerLimits::default());
        let (key_pem, request) = authority::make_request().unwrap();
        let subject = deployment.identity(Role::Sensor, 42);
        let now = clock::unix_ms();
        let sign = |request: &[u8]| {
            deployment.authority.sign_request(now, request, &subject, Usage::Client, DAY)
        };
        let certificate = sign(&request).unwrap();
        let mut tampered = request.clone();
        *tampered.last_mut().unwrap() ^= 1;
        assert!(sign(&tampered).is_err());
        assert!(sign(&[]).is_err());
        assert!(sign(&vec![0x30; 4096]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let [ca, key] = ["ca.pem", "key.pem"].map(|name| folder.path().join(name));
        deployment.authority.save(&ca, &key).unwrap();
        let reloaded = Authority::load(&ca, &key).unwrap();
        assert_eq!(reloaded.certificate_der(), deployment.authority.certificate_der());
        assert_eq!(PeerIdentity::from_certificate(&certificate.der), Ok(subject));
        let enrolled =
            Credentials::from_pem(reloaded.certificate_pem(), &certificate.pem, &key_pem).unwrap();
        greet(&serving, &client(&enrolled, Plane::Sensor)).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [(Plane::Sensor, Some(subject))]);
    });
}

#[test]
fn a_damaged_certificate_is_never_somebody_else_and_never_a_panic() {
    let deployment = Deployment::new(1);
    let (_, request) = authority::make_request().unwrap();
    let subject = deployment.identity(Role::Sensor, 42);
    let sign = |request: &[u8]| {
        deployment.authority.sign_request(clock::unix_ms(), request, &subject, Usage::Client, DAY)
    };
    let certificate = sign(&request).unwrap().der;
    for at in 0..certificate.len() {
        for damage in [0x01, 0x80, 0xff] {
            let mut damaged = certificate.clone();
            damaged[at] ^= damage;
            let _ = PeerIdentity::from_certificate(&damaged);
        }
        assert!(PeerIdentity::from_certificate(&certificate[..at]).is_err());
    }
    for at in 0..request.len() {
        let mut damaged = request.clone();
        damaged[at] ^= 0x01;
        // The name of the signature's algorithm is not under the signature.
        if let Ok(signed) = sign(&damaged) {
            assert_eq!(key_digest(&signed.der), key_digest(&certificate), "damaged at {at}");
        }
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    run(|executor| async move {
        let deployment = Deployment::new(1);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let tls = config::Tls {
            cert: path("cert.pem"),
            key: path("key.pem"),
            ca: path("ca.pem"),
            client_ca: Vec::new(),
        };
        let issue = |id| {
            let subject = deployment.identity(Role::Detection, id);
            let usage = Usage::Server(&[]);
            let leaf = deployment.authority.issue(clock::unix_ms(), &subject, usage, DAY).unwrap();
            leaf.save(&tls.cert, &tls.key).unwrap();
        };
        issue(1);
        std::fs::write(&tls.ca, deployment.authority.certificate_pem()).unwrap();
        let credentials = Credentials::load(&tls).unwrap();
        let setup = Setup {
            executor: &executor,
            credentials: credentials.clone(),
            deployment: deployment.id,
            planes: &[Plane::Http],
            limits: ListenerLimits::default(),
        };
        let serving = setup.serve(greeter(&Seen::default()));
        let ours = deployment.credentials(Role::Webapp, 8);
        let expected = |id| ExpectedPeer { id: Some([id; 16]), ..ExpectedPeer::default() };
        let client = |id| ClientTls::new(&ours, Plane::Http, expected(id)).unwrap();
        greet(&serving, &client(1)).await.unwrap();
        issue(2);
        credentials.reload(&tls).unwrap();
        greet(&serving, &client(2)).await.unwrap();
        std::fs::write(&tls.key, "no key").unwrap();
        let error = credentials.reload(&tls).unwrap_err();
        assert!(error.to_string().contains("this is not a private key in PEM"), "{error}");
        greet(&serving, &client(2)).await.unwrap();
    });
}
