//! Texts of the benchmark page that do not depend on the figures.

pub(super) const TABLE_NOTES: &str = "
**A round that fell behind makes its server look cheaper than it is.**
Its p99 latency exceeds the interval between two broadcasts, so some events were sent together in
one write.
A server that fell behind or lost events in most rounds does not lead in the rows of that load.
`send-loop` never leads: it is the minimum cost of a delivery, not a server.

Memory per loaded stream was read after the load at the highest stream count only: at lower counts
a server still holds memory from the streams that were open before.
Lost, duplicated and out of order are totals over everything that was measured.

";

pub(super) const BREAK_NOTES: &str = "\
Broken streams are those that ended although the load tester had not disconnected them: the server
closed them, or their connection failed.
Each is opened again after its reconnect delay, with its last event id if it has one.

";

pub(super) const SCENARIO_NOTES: &str = "\
*Users*: each stream belongs to a user of its own, who gets one event per second.
*Storm*: all streams are cut while publishing continues, stay away for some seconds, and reconnect
at once (128 attempts at a time) with their last event ids.
CPU is that of the time from the first attempt until all streams have caught up.
*Stalled*: half of the streams stop reading large events; the growth of the server's memory in that
time includes what it stores for all streams, such as a history.
A server that disconnects these streams has no figure.
Stalled, idle and the other stream counts are measured in the first round only.

";

pub(super) const RATIO_NOTES: &str = "\
## Required ratios

The gateway's figures as multiples of those of other servers in the same round.

";

pub(super) const PLOTS: &str = "\
![CPU per million deliveries](images/bench-cpu.png)

![Memory per idle stream](images/bench-memory.png)

";

pub(super) const INSTALL: &str = "
Nchan: `apt-get install nginx-light libnginx-mod-nchan`.
Pushpin: `apt-get install pushpin`.
AnyCable, Centrifugo and Mercure: put `anycable-go`, `centrifugo` and `mercure` on the PATH; the
next `make bench` includes them.
Their released binaries have no further dependencies
(<https://github.com/anycable/anycable/releases>,
<https://github.com/centrifugal/centrifugo/releases>,
<https://github.com/dunglas/mercure/releases>).
`loadtest/README.md` describes how to build them, and with which versions the adapters were tested.
";

pub(super) const NOT_COMPARABLE: &str = "
## Limits of the comparison

- **Since 2026-11-28, `make bench` builds the gateway as for a release**, with profile-guided
  optimisation (`make optimised`): the compiler lays out its code by what ran under load.
  The yardsticks are built as Cargo builds a release, the peers by their distributors.
- **The yardsticks do nothing else.**
  `plain-actix` has no tickets, users, topics, meaningful event ids, log, resume, limits or
  metrics, and uses Redis only for the events of single users.
  `send-loop` does not even have a queue: one stalled client blocks all others.
  They show the minimum cost of a delivery, not a server to deploy.
- **Memory per stream of `plain-actix` is that of actix-http**: a read and a write buffer of 8 KiB
  each (untouched pages do not count), the dispatcher and its timers.
  All streams read one broadcast channel.
  With a tokio `mpsc` channel per stream, a common first design, each would need 3.3 KiB more
  (measured with 2,000 streams: 13.3 KiB instead of 10.1 KiB), which is the cost of a queue, not of
  a server.
  The gateway needs less because it writes HTTP/1.1 to its streams itself and keeps no buffer for
  an idle stream.
- **Nchan** runs with Redis, like the gateway, and keeps 1000 messages, but its streams have no
  tickets.
  Its events are published through its HTTP endpoint, those of the gateway by a durable publish in
  Redis.
- **Pushpin** has no log and no Redis.
  For each new stream it asks an origin, which accepts everyone and is not measured; its HTTP server
  (Condure) and HTTP client (Zurl) are.
  Its limit of deliveries per second is raised: the default of 2,500 is below every load here.
- **Mercure**'s open-source hub does not use Redis: it is a single node with a file, and its
  clients are anonymous.
- **Centrifugo** verifies a JWT of each user.
  Its SSE events have no ids, so `EventSource` alone cannot resume: in a storm, the load tester
  sends the epoch and offset of the last event in the connect request, as a page would have to.
- **AnyCable** verifies one JWT, the same for all streams, and keeps its history in memory: its
  Redis broker is not open source.
- **Events of single users** are published with FCALL (gateway), PUBLISH (`plain-actix`) or HTTP
  requests on four connections (the others), which their servers must parse.
- **The CPU of Redis is not included** in the server's; its row is empty where there is no Redis.
- **Latency depends on the machine.**
  Load tester and server share the cores.
  At 10,000 streams x 10/s the two together need more than one core, and the last delivery of an
  event waits for the 9,999 before it: the p50 shows how long one pass over all streams takes.
  It says nothing about a server that has its cores to itself.
- **Loopback**: no packet loss, no network card, no TLS.
  Kernel memory counts both ends of each connection and everything else that the kernel allocated
  in the meantime.
- **Connects/s**: the load tester signs the gateway's tickets and Centrifugo's JWTs (HS256) at the
  same time on the same cores, and the gateway creates a session in Redis for each connection.
";

pub(super) const METHOD: &str = "
## Method

```sh
make bench    # target/bench/loadtest bench, then the plots
```

The servers take turns in each scenario; each starts anew every time.
For the other stream counts, the streams are opened in steps up to the highest count (connects, idle
memory), then closed in steps, with a load at each step.
A round of a scenario that would exceed the time budget is skipped.
loadtest substitutes `__PORT__`, `__REDIS_PORT__`, `__CONTROL_PORT__`, `__DIR__` and `__TOKEN__`.
";
