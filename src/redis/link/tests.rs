use super::{testing::unreachable, *};

#[tokio::test]
async fn pauses_between_attempts_double() {
    let (context, _link, supervisor) = unreachable("record");
    let began = Instant::now();
    let five_attempts = async {
        while context.metrics.reconnects.get() < 5 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        _ = supervisor.run() => panic!("the supervisor ended"),
        () = five_attempts => {}
    }
    // Half of 100, 200, 400, 800 and 1600 ms is fixed, the other half random.
    assert!(began.elapsed() >= Duration::from_millis(50 + 100 + 200 + 400 + 800));
}

#[tokio::test]
async fn requests_fail_at_once_while_the_link_is_down() {
    let (_context, link, mut supervisor) = unreachable("record");
    let user: Arc<str> = "a".into();
    // Another connection of the user, whose count must not change.
    supervisor.subscriptions.attach(&user);
    let requests = async {
        let began = Instant::now();
        assert!(
            link.clock_snapshot(Some(&user), Part::Whole).await.is_err()
                && link.plain(true).await.is_err()
        );
        assert!(link.subscribe(&user, Part::Whole).await.is_err());
        // Well within the time-out of a request, which is twice that of a command.
        assert!(began.elapsed() < Duration::from_secs(4));
    };
    tokio::select! {
        () = supervisor.refuse_for(Duration::from_secs(60)) => panic!("nobody was refused"),
        () = requests => {}
    }
    // The release of the refused subscription is on its way.
    supervisor.refuse_for(Duration::from_millis(1)).await;
    assert_eq!(supervisor.subscriptions.lost(), [Arc::clone(&user)]);
    supervisor.subscriptions.release(&user, Instant::now());
    assert!(supervisor.subscriptions.lost().is_empty(), "a refused request was counted");
}

#[test]
fn relay_mode_subscribes_to_public_channels_too() {
    let channels = |mode| {
        let (_context, _link, supervisor) = unreachable(mode);
        let users = ["a".into(), "b".into()];
        assert_eq!(
            supervisor.live(&users),
            ["sse:live:{user:a:events}", "sse:live:{user:b:events}"]
        );
        supervisor.public(&users)
    };
    assert_eq!(channels("record"), Vec::<String>::new());
    assert_eq!(channels("relay"), ["user:a:events", "user:b:events"]);
}
