//! Table of the peers: other servers with which the gateway is compared.

use std::path::Path;

use super::process::version;
use super::{NCHAN as NCHAN_NAME, Server, start};
use crate::bench::workload::Workload;

/// Nchan.
pub(super) const NCHAN: Server = Server {
    name: NCHAN_NAME,
    what: "Nchan in nginx, channels in Redis (distributed); no tickets",
    version: start::nchan_version,
    started_by: "redis-server as above; nginx -c loadtest/peers/nchan.conf",
    start: start::nchan,
    options: &[
        "--kind",
        "plain",
        "--url",
        "http://127.0.0.1:__PORT__/events/load",
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__PORT__/publish/load",
        "--redis",
        "redis://127.0.0.1:__REDIS_PORT__",
    ],
    user_options: &[
        "--kind",
        "plain",
        "--url",
        "http://127.0.0.1:__PORT__/events/{user}",
        "--user-prefix",
        "user",
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__PORT__/publish/{user}",
        "--publishers",
        "4",
        "--redis",
        "redis://127.0.0.1:__REDIS_PORT__",
    ],
    unsupported: &[],
};

/// Pushpin.
pub(super) const PUSHPIN: Server = Server {
    name: "pushpin",
    what: "Pushpin, one node without Redis, in front of an origin that subscribes each stream to a \
           channel; no tickets",
    version: start::pushpin_version,
    started_by: "pushpin-origin (not measured); pushpin --config=loadtest/peers/pushpin.conf",
    start: start::pushpin,
    options: &[
        "--kind",
        "plain",
        "--url",
        "http://127.0.0.1:__PORT__/events/load",
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__CONTROL_PORT__/publish/",
        "--post-body",
        concat!(
            r#"{"items":[{"channel":"load","formats":{"http-stream":"#,
            r#"{"content":"data: {payload-escaped}\n\n"}}}]}"#
        ),
    ],
    user_options: &[
        "--kind",
        "plain",
        "--url",
        "http://127.0.0.1:__PORT__/events/{user}",
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__CONTROL_PORT__/publish/",
        "--publishers",
        "4",
        "--post-body",
        concat!(
            r#"{"items":[{"channel":"{user}","formats":{"http-stream":"#,
            r#"{"content":"data: {payload-escaped}\n\n"}}}]}"#
        ),
    ],
    unsupported: &[(
        Workload::Storm,
        "it has no log: the origin behind it would have to replay what a stream missed",
    )],
};

/// Centrifugo.
pub(super) const CENTRIFUGO: Server = Server {
    name: "centrifugo",
    what: "Centrifugo, unidirectional SSE, Redis engine, history with forced recovery; \
           a JWT for each user",
    version: || version(Path::new("centrifugo"), "version"),
    started_by: "redis-server as above; centrifugo -c loadtest/peers/centrifugo.json",
    start: start::centrifugo,
    options: &[
        "--kind",
        "centrifugo",
        "--secret-file",
        "__DIR__/secret",
        "--ticket-ttl",
        "1h",
        "--url",
        concat!(
            "http://127.0.0.1:__PORT__/connection/uni_sse?cf_connect=",
            "%7B%22token%22%3A%22{token}%22%2C%22subs%22%3A%7B%22load%22%3A%7B{recover}%7D%7D%7D"
        ),
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__PORT__/api/publish",
        "--post-body",
        r#"{"channel":"load","data":{payload}}"#,
        "--redis",
        "redis://127.0.0.1:__REDIS_PORT__",
        "--post-header",
        "X-API-Key: bench",
        "--post-header",
        "Content-Type: application/json",
    ],
    user_options: &[
        "--kind",
        "centrifugo",
        "--secret-file",
        "__DIR__/secret",
        "--ticket-ttl",
        "1h",
        "--url",
        concat!(
            "http://127.0.0.1:__PORT__/connection/uni_sse?cf_connect=",
            "%7B%22token%22%3A%22{token}%22%2C%22subs%22%3A%7B%22{user}%22%3A%7B{recover}%7D%7D%7D"
        ),
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__PORT__/api/publish",
        "--publishers",
        "4",
        "--post-body",
        r#"{"channel":"{user}","data":{payload}}"#,
        "--redis",
        "redis://127.0.0.1:__REDIS_PORT__",
        "--post-header",
        "X-API-Key: bench",
        "--post-header",
        "Content-Type: application/json",
    ],
    unsupported: &[],
};

/// Anycable.
pub(super) const ANYCABLE: Server = Server {
    name: "anycable",
    what: "AnyCable, standalone, SSE, memory broker (the Redis broker is not open source), \
           Redis pub/sub; a JWT for each connection",
    version: || version(Path::new("anycable-go"), "--version"),
    started_by: "redis-server as above; ANYCABLE_DISABLE_TELEMETRY=true \
                 anycable-go --config-path loadtest/peers/anycable.toml",
    start: start::anycable,
    options: &[
        "--kind",
        "plain",
        "--url",
        "http://127.0.0.1:__PORT__/events?stream=load&jid=__TOKEN__",
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__PORT__/_broadcast",
        "--post-body",
        r#"{"stream":"load","data":{payload-string}}"#,
        "--redis",
        "redis://127.0.0.1:__REDIS_PORT__",
        "--post-header",
        "Authorization: Bearer bench",
    ],
    user_options: &[
        "--kind",
        "plain",
        "--url",
        "http://127.0.0.1:__PORT__/events?stream={user}&jid=__TOKEN__",
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__PORT__/_broadcast",
        "--publishers",
        "4",
        "--post-body",
        r#"{"stream":"{user}","data":{payload-string}}"#,
        "--redis",
        "redis://127.0.0.1:__REDIS_PORT__",
        "--post-header",
        "Authorization: Bearer bench",
    ],
    unsupported: &[],
};

/// Mercure.
pub(super) const MERCURE: Server = Server {
    name: "mercure",
    what: "Mercure hub, one node with Bolt (the open-source hub does not support Redis); \
           anonymous clients",
    version: start::mercure_version,
    started_by: "mercure run --adapter caddyfile --config loadtest/peers/Caddyfile",
    start: start::mercure,
    options: &[
        "--kind",
        "plain",
        "--url",
        "http://127.0.0.1:__PORT__/.well-known/mercure?topic=load",
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__PORT__/.well-known/mercure",
        "--post-body",
        "topic=load&data={payload}",
        "--post-header",
        "Authorization: Bearer __TOKEN__",
        "--post-header",
        "Content-Type: application/x-www-form-urlencoded",
    ],
    user_options: &[
        "--kind",
        "plain",
        "--url",
        "http://127.0.0.1:__PORT__/.well-known/mercure?topic={user}",
        "--publish",
        "post",
        "--publish-url",
        "http://127.0.0.1:__PORT__/.well-known/mercure",
        "--publishers",
        "4",
        "--post-body",
        "topic={user}&data={payload}",
        "--post-header",
        "Authorization: Bearer __TOKEN__",
        "--post-header",
        "Content-Type: application/x-www-form-urlencoded",
    ],
    unsupported: &[],
};
