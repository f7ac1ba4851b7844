
-- The server process ------------------------------------------------------------------------------

-- Neither changes while the process lives. nil: not read yet.
local own_run_id, is_cluster
-- The id of this node of a cluster, which outlives its process. Empty without a cluster.
local own_id = ''

local function identify()
  if own_run_id then return end
  local info = redis.call('INFO', 'server') .. redis.call('INFO', 'cluster')
  own_run_id = string.match(info, 'run_id:(%x+)') or ''
  is_cluster = string.find(info, 'cluster_enabled:1', 1, true) ~= nil
  if is_cluster then own_id = redis.call('CLUSTER', 'MYID') end
end

local function run_id()
  identify()
  return own_run_id
end

-- A watermark reads the server's role at most this often, because INFO is its most expensive part.
local REPLICATION_MS = 100
local role, replication_id
-- Whether the server has, or recently had, a replica or was one itself: a former primary's
-- replication id, or a backlog, which only a replica starts.
local has_replicas = false
-- Whether the server was a replica: then it has the replication id of its former primary, too. A
-- former primary has its own.
local was_replica, former_replid = false, ''
local replication_read_ms = 0
-- The replication id at adoption. It changes when the server becomes a primary (again); also when
-- its first replica connects, and some time after the last one left (`repl-backlog-ttl`).
local adopted_replid
-- When it was read last, and whether a position was assigned since then.
local adopted_replid_ms = 0
local is_unverified = false

-- The server's role and its replication id, read within the last `max_age_ms`.
local function replication(now, max_age_ms)
  if now - replication_read_ms >= max_age_ms or now < replication_read_ms then
    local info = redis.call('INFO', 'replication')
    role = string.match(info, 'role:(%a+)')
    replication_id = string.match(info, 'master_replid:(%x+)') or ''
    former_replid = string.match(info, 'master_replid2:(%x+)') or ''
    was_replica = string.find(former_replid, '[1-9a-f]') ~= nil
    has_replicas = role ~= 'master' or not string.find(info, 'connected_slaves:0', 1, true)
      or string.find(info, 'repl_backlog_active:1', 1, true) ~= nil
      or was_replica
    replication_read_ms = now
    if role == 'master' and replication_id == adopted_replid then
      adopted_replid_ms, is_unverified = now, false
    end
  end
  return role, replication_id
end
