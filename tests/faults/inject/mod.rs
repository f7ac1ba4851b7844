//! The faults: what each does, where it applies, and which gaps it makes necessary.

mod cluster;
mod failover;
mod gateways;
mod links;
mod postgres;
mod servers;

use crate::checker::Rules;
use crate::deployment::Kind;
use crate::world::World;
use std::time::Instant;

macro_rules! faults {
    ($($fault:ident = $name:literal,)*) => {
        /// A fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { $($fault),* }

        impl Fault {
            /// All faults, in the order of the report.
            pub const ALL: &'static [Fault] = &[$(Fault::$fault),*];

            /// The name in the report.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name),* }
            }
        }
    };
}

faults! {
    None = "no fault",
    KillRecorder = "gateway killed: recorder",
    KillStandby = "gateway killed: standby",
    KillOther = "gateway killed: another one",
    KillReader = "gateway killed: reader of the outbox",
    FreezeRecorder = "gateway stopped for 3 s: recorder",
    FreezeStandby = "gateway stopped for 3 s: standby",
    FreezeOther = "gateway stopped for 3 s: another one",
    FreezeReader = "gateway stopped for 3 s: reader of the outbox",
    TerminateRecorder = "SIGTERM: recorder",
    TerminateStandby = "SIGTERM: standby",
    TerminateOther = "SIGTERM: another gateway",
    TerminateReader = "SIGTERM: reader of the outbox",
    RollingRestart = "rolling restart of all gateways",
    LongerRetention = "rolling restart with a longer retention",
    OtherSettings = "one gateway with other settings",
    RedisKilled = "Redis killed and restarted",
    RedisFrozen = "Redis stopped for 5 s",
    RedisSlow = "200 ms between gateways and Redis",
    LinkCut = "connections of the recorder cut",
    LinksCut = "connections of all gateways cut",
    LinkHalfOpen = "connections of the recorder half-open for 6 s",
    LinksHalfOpen = "connections of all gateways half-open for 6 s",
    SnapshotsCut = "connections cut while new clients get retained values",
    LinksDown = "Redis unreachable for all gateways for 3 s",
    PubsubKilled = "CLIENT KILL TYPE pubsub",
    OutputBuffer = "output buffer of a link exceeded",
    FlushAll = "FLUSHALL",
    FlushAllUnseen = "FLUSHALL while Redis is unreachable",
    FunctionFlush = "FUNCTION FLUSH",
    OutOfMemory = "maxmemory reached",
    ClockBack = "clock of Redis set back by 1 h",
    TwoServers = "two servers behind one address",
    TwoServersUsed = "two servers behind one address, also for publishers",
    PrimaryKilled = "primary killed",
    PrimaryFrozen = "primary stopped until the failover",
    PrimaryPartitioned = "primary partitioned with a publisher",
    PlannedFailover = "SENTINEL FAILOVER",
    FailBack = "failover and failback to the same process",
    OldPrimaryReturns = "old primary returns as a primary",
    ReplicasLost = "last replica lost, min-replicas-to-write 1",
    BroadcastMasterKilled = "master of the broadcasts killed",
    UserMasterKilled = "master of some users killed",
    MasterStopped = "master stopped until the failover",
    MasterPartitioned = "master partitioned with a publisher",
    UserSlotMoved = "slot of a user moved under load",
    BroadcastSlotMoved = "slot of the broadcasts moved under load",
    MasterAdded = "master added, slots moved to it",
    PostgresKilled = "Postgres killed and restarted",
    PostgresFrozen = "Postgres stopped for 5 s",
    Churn = "1,000 clients connect and leave",
}

/// Replication is asynchronous: a replica that is promoted may lack anything.
pub fn failover_rules(plain: bool) -> Rules {
    let mut rules = Rules { discards: true, ..Rules::default() };
    rules.allowed.insert("reset");
    if plain {
        rules.allowed.insert("unrecorded");
    }
    rules
}

impl Fault {
    /// Whether it applies to a deployment.
    pub fn applies(self, kind: Kind) -> bool {
        match self {
            Fault::ClockBack => kind.has_clock(),
            Fault::RedisKilled | Fault::RedisFrozen | Fault::OutputBuffer => kind.is_single(),
            Fault::FlushAll | Fault::FunctionFlush | Fault::OutOfMemory => kind.is_single(),
            Fault::FlushAllUnseen => kind.is_single(),
            Fault::TwoServers | Fault::TwoServersUsed => kind.is_single(),
            Fault::PubsubKilled => kind.is_single(),
            Fault::LinkCut | Fault::LinksCut | Fault::LinkHalfOpen => kind.has_links(),
            Fault::LinksHalfOpen | Fault::LinksDown | Fault::RedisSlow => kind.has_links(),
            Fault::SnapshotsCut => kind.has_links(),
            // A primary that does not restart is only stopped by `min-replicas-to-write`.
            Fault::PrimaryFrozen | Fault::PrimaryPartitioned => kind == Kind::Sentinel,
            Fault::ReplicasLost => kind == Kind::Sentinel,
            Fault::PrimaryKilled | Fault::PlannedFailover => kind.is_replicated(),
            Fault::FailBack | Fault::OldPrimaryReturns => kind.is_replicated(),
            Fault::BroadcastMasterKilled | Fault::UserMasterKilled => kind == Kind::Cluster,
            Fault::MasterStopped | Fault::MasterPartitioned => kind == Kind::Cluster,
            Fault::UserSlotMoved => kind == Kind::Cluster,
            Fault::BroadcastSlotMoved | Fault::MasterAdded => kind == Kind::Cluster,
            _ => true,
        }
    }

    /// What it permits. `plain`: there are plain publishers.
    pub fn rules(self, kind: Kind, plain: bool) -> Rules {
        let mut rules = Rules::default();
        // Plain messages that no recorder received are lost.
        let misses_plain = match self {
            Fault::RedisKilled | Fault::RedisFrozen | Fault::LinksCut | Fault::LinksDown => true,
            Fault::LinksHalfOpen | Fault::PubsubKilled | Fault::OutputBuffer => true,
            Fault::SnapshotsCut | Fault::TwoServersUsed => true,
            Fault::FlushAll | Fault::FlushAllUnseen | Fault::ReplicasLost => true,
            // The recorder follows the slot to another server.
            Fault::BroadcastSlotMoved => true,
            _ => false,
        };
        if misses_plain && plain {
            rules.allowed.insert("unrecorded");
        }
        match self {
            // The last second may not have been written.
            Fault::RedisKilled if kind == Kind::Everysec => {
                rules.allowed.insert("reset");
            }
            Fault::FlushAll | Fault::FlushAllUnseen => {
                rules.allowed.insert("reset");
                rules.discards = true;
            }
            Fault::PrimaryKilled | Fault::PrimaryFrozen | Fault::PrimaryPartitioned => {
                return failover_rules(plain);
            }
            Fault::BroadcastMasterKilled | Fault::UserMasterKilled => return failover_rules(plain),
            Fault::MasterStopped | Fault::MasterPartitioned => return failover_rules(plain),
            Fault::PlannedFailover | Fault::FailBack | Fault::OldPrimaryReturns => {
                return failover_rules(plain);
            }
            Fault::KillRecorder | Fault::KillStandby | Fault::KillOther | Fault::KillReader => {
                rules.ends_streams = true
            }
            Fault::TerminateRecorder | Fault::TerminateStandby => rules.ends_streams = true,
            Fault::TerminateOther | Fault::TerminateReader => rules.ends_streams = true,
            Fault::RollingRestart => rules.ends_streams = true,
            Fault::LongerRetention | Fault::OtherSettings => rules.ends_streams = true,
            Fault::TwoServers | Fault::SnapshotsCut => rules.ends_streams = true,
            Fault::ClockBack => rules.delays_unseen = true,
            // The second server accepts events until a gateway meets it.
            Fault::TwoServersUsed => {
                rules.allowed.insert("reset");
                rules.discards = true;
            }
            _ => {}
        }
        rules
    }

    /// Lets it happen, and ends it. Returns the moment from which the recovery counts.
    pub async fn inject(self, world: &mut World) -> Instant {
        use crate::fleet::Role::{Other, Reader, Standby, Writer};
        match self {
            Fault::None => Instant::now(),
            Fault::KillRecorder => gateways::kill(world, Writer).await,
            Fault::KillStandby => gateways::kill(world, Standby).await,
            Fault::KillOther => gateways::kill(world, Other).await,
            Fault::KillReader => gateways::kill(world, Reader).await,
            Fault::FreezeRecorder => gateways::freeze(world, Writer).await,
            Fault::FreezeStandby => gateways::freeze(world, Standby).await,
            Fault::FreezeOther => gateways::freeze(world, Other).await,
            Fault::FreezeReader => gateways::freeze(world, Reader).await,
            Fault::TerminateRecorder => gateways::terminate(world, Writer).await,
            Fault::TerminateStandby => gateways::terminate(world, Standby).await,
            Fault::TerminateOther => gateways::terminate(world, Other).await,
            Fault::TerminateReader => gateways::terminate(world, Reader).await,
            Fault::RollingRestart => gateways::roll(world).await,
            Fault::LongerRetention => gateways::longer_retention(world).await,
            Fault::OtherSettings => gateways::other_settings(world).await,
            Fault::RedisKilled => servers::kill(world).await,
            Fault::RedisFrozen => servers::freeze(world).await,
            Fault::RedisSlow => links::slow(world).await,
            Fault::LinkCut => links::cut_one(world).await,
            Fault::LinksCut => links::cut_all(world).await,
            Fault::LinkHalfOpen => links::half_open_one(world).await,
            Fault::LinksHalfOpen => links::half_open_all(world).await,
            Fault::SnapshotsCut => links::cut_in_snapshots(world).await,
            Fault::LinksDown => links::down(world).await,
            Fault::PubsubKilled => servers::kill_pubsub(world).await,
            Fault::OutputBuffer => servers::output_buffer(world).await,
            Fault::FlushAll => servers::flush_all(world).await,
            Fault::FlushAllUnseen => servers::flush_all_unseen(world).await,
            Fault::FunctionFlush => servers::flush_functions(world).await,
            Fault::OutOfMemory => servers::out_of_memory(world).await,
            Fault::ClockBack => servers::clock_back(world).await,
            Fault::TwoServers => servers::two_behind_one_address(world).await,
            Fault::TwoServersUsed => servers::two_in_use(world).await,
            Fault::PrimaryKilled => failover::kill_primary(world).await,
            Fault::PrimaryFrozen => failover::freeze_primary(world).await,
            Fault::PrimaryPartitioned => failover::partition_primary(world).await,
            Fault::PlannedFailover => failover::planned(world).await,
            Fault::FailBack => failover::fail_back(world).await,
            Fault::OldPrimaryReturns => failover::old_primary_returns(world).await,
            Fault::ReplicasLost => failover::lose_replicas(world).await,
            Fault::BroadcastMasterKilled => cluster::kill_master(world, "broadcast:news").await,
            Fault::UserMasterKilled => cluster::kill_user_master(world).await,
            Fault::MasterStopped => cluster::stop_master(world).await,
            Fault::MasterPartitioned => cluster::partition_master(world).await,
            Fault::UserSlotMoved => cluster::move_slot(world, "user:u0:events").await,
            Fault::BroadcastSlotMoved => cluster::move_slot(world, "broadcast:news").await,
            Fault::MasterAdded => cluster::add_master(world).await,
            Fault::PostgresKilled => postgres::kill(world).await,
            Fault::PostgresFrozen => postgres::freeze(world).await,
            Fault::Churn => gateways::churn(world).await,
        }
    }
}
