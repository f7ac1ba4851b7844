
-- The clock and the epoch -------------------------------------------------------------------------
-- Both are in the memory of this library, which the server process loses when it ends or when the
-- library is replaced. The node key outlives it and tells whether the history continues.

local NODE = PREFIX .. 'node:' .. BROADCAST
-- Without a watermark for this long, each write checks that the server was not a replica meanwhile.
local UNWATCHED_MS = 2000

-- The current epoch as a number and as text. nil: this process is not adopted.
local epoch, epoch_text
-- The last position assigned, or a later one that a gateway has seen.
local clock_ms, clock_seq = 0, 0
-- The replication id at adoption. It changes when the server becomes a primary (again).
local adopted_replid
-- Server time of the last watermark.
local watched_ms = 0
local own_run_id

local function run_id()
  own_run_id = own_run_id or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
  return own_run_id
end

-- A watermark reads the server's role at most this often, because INFO is its most expensive part.
local REPLICATION_MS = 100
local role, replication_id
local replication_read_ms = 0

-- The server's role and its replication id, read within the last `max_age_ms`.
local function replication(now, max_age_ms)
  if now - replication_read_ms >= max_age_ms or now < replication_read_ms then
    local info = redis.call('INFO', 'replication')
    role = string.match(info, 'role:(%a+)')
    replication_id = string.match(info, 'master_replid:(%x+)') or ''
    replication_read_ms = now
  end
  return role, replication_id
end

local function show_position(ms, seq)
  return show_id(ms, seq) .. '.' .. epoch_text
end

local function enter_epoch(number_of_epoch)
  epoch, epoch_text = number_of_epoch, base36(number_of_epoch)
end

local function advance(ms, seq)
  if is_after(ms, seq, clock_ms, clock_seq) then clock_ms, clock_seq = ms, seq end
end

-- Events up to now are kept for the former, shorter retention: a longer one restores none of them.
local function raise_retention(node, now)
  local before = number(node.retention_ms)
  if before == RETENTION_MS then return end
  if before and before < RETENTION_MS then
    local raised_ms = math.max(now, clock_ms)
    local earlier_ms, shorter_ms = number(node.raised_ms), number(node.shorter_ms)
    -- An earlier raise counts as long as it explains more.
    if earlier_ms and shorter_ms and raised_ms <= earlier_ms + before then
      before = math.min(before, shorter_ms)
    end
    redis.call('HSET', NODE, 'raised_ms', string.format('%d', raised_ms),
      'shorter_ms', string.format('%d', before))
  end
  redis.call('HSET', NODE, 'retention_ms', RETENTION_MS)
end

local NODE_FIELDS = { 'run_id', 'replid', 'epoch', 'clock', 'start', 'previous', 'retention_ms',
  'raised_ms', 'shorter_ms' }

local function read_node()
  local values = call('HMGET', NODE, unpack(NODE_FIELDS))
  local node = {}
  for i, name in ipairs(NODE_FIELDS) do node[name] = values[i] or nil end
  return node
end

-- Makes this process known. The history continues if the node key names this process, this
-- replication id and the epoch in memory; otherwise a new epoch begins, after everything that this
-- process, the node key and the gateways (`seen`) know of and that is possible.
local function adopt(now, seen)
  local node = read_node()
  local _, replid = replication(now, 0)
  local seen_ms, seen_seq, seen_epoch = foreign_position(seen, now)
  local node_epoch = foreign_epoch(node.epoch, now)
  local node_ms, node_seq = foreign_id(node.clock, now + CLOCK_AHEAD_MS)
  -- The server's time was set back by days.
  local is_reset = clock_ms > now + CLOCK_AHEAD_MS
  if is_reset then clock_ms, clock_seq = 0, 0 end
  -- After a reload of the library the clock is not in memory: the next millisecond is free.
  if not epoch then advance(now + 1, 0) end
  if node_ms then advance(node_ms, node_seq) end
  if seen_ms then advance(seen_ms, seen_seq) end
  local continues = not is_reset and node_epoch
    and node.run_id == run_id() and node.replid == replid
    and (not epoch or epoch == node_epoch) and (seen_epoch or 0) <= node_epoch
  if continues then
    enter_epoch(node_epoch)
  else
    local known = foreign_epoch(epoch_text, now) or 0
    local previous = math.max(known, node_epoch or 0, seen_epoch or 0)
    -- Two processes may not know of each other, whatever their clocks: their epochs differ.
    local own = (tonumber(string.sub(run_id(), 1, 4), 16) or 0) % EPOCHS_PER_SECOND
    enter_epoch(math.max(epoch_at(now), previous + 1) + own)
    advance(now, 0)
    advance(clock_ms + 1, 0)
    redis.call('HSET', NODE, 'run_id', run_id(), 'replid', replid, 'epoch', epoch_text,
      'start', show_id(clock_ms, clock_seq), 'previous', base36(previous),
      'clock', show_id(clock_ms, clock_seq))
    if previous > 0 then
      redis.call('SPUBLISH', LIVE_BROADCAST, 'epoch ' .. show_position(clock_ms, clock_seq))
    end
  end
  adopted_replid = replid
  raise_retention(node, now)
end

-- Before the first position is assigned: adopts this process if it is not, or if the server was a
-- replica meanwhile. Gateways notice the latter within a second, so it is checked only without
-- them.
local function ensure_adopted(now)
  if not epoch then return adopt(now) end
  if now - watched_ms <= UNWATCHED_MS and now >= watched_ms then return end
  local _, replid = replication(now, 0)
  if replid ~= adopted_replid then
    adopt(now)
  else
    -- Not again within 100 ms, because writes come in bursts.
    watched_ms = now - UNWATCHED_MS + 100
  end
end

-- The next position: the time, but always after the last one. The caller assigns it with `assign`.
local function next_id(now)
  if now > clock_ms then return now, 0 end
  return following(clock_ms, clock_seq)
end

local function assign(ms, seq)
  clock_ms, clock_seq = ms, seq
  return show_position(ms, seq)
end

-- What a gateway learns of this server, as name/value pairs.
local function describe(node, now, state)
  -- Streams need the watermark even if the recorder's key holds something else.
  local unrecorded = attempt('HGET', RECORDER, 'unrecorded')
  return { 'state', state, 'h', show_position(clock_ms, clock_seq), 'start', node.start or '',
    'previous', node.previous or '', 'unrecorded', unrecorded or '',
    'raised_ms', node.raised_ms or '0', 'shorter_ms', node.shorter_ms or '0',
    'now_ms', string.format('%d', now) }
end

-- sse_watermark 1 <node key> <seen>: everything up to the returned position has arrived on the
-- connection that called. `seen` is the highest position that the gateway knows of this server. The
-- state is `adopted`, `replica` or `unknown`; with the last two nothing else is returned.
local function watermark(_, args)
  local now = now_ms()
  local own_role, replid = replication(now, REPLICATION_MS)
  if own_role ~= 'master' then return { 'state', 'replica' } end
  local node = read_node()
  local seen_ms, seen_seq, seen_epoch = foreign_position(args[1], now)
  if not epoch or node.epoch ~= epoch_text or node.run_id ~= run_id() or node.replid ~= replid
    or replid ~= adopted_replid or (seen_epoch and seen_epoch > epoch)
    or clock_ms > now + CLOCK_AHEAD_MS then
    return { 'state', 'unknown' }
  end
  if seen_epoch == epoch then advance(seen_ms, seen_seq) end
  advance(now, 0)
  watched_ms = now
  return describe(node, now, 'adopted')
end

-- sse_adopt 1 <node key> <seen>: adopts this process if its watermark is `unknown`.
local function adopt_call(_, args)
  local now = now_ms()
  if replication(now, 0) ~= 'master' then return { 'state', 'replica' } end
  adopt(now, args[1])
  watched_ms = now
  return describe(read_node(), now, 'adopted')
end

-- sse_save 1 <node key>: stores the clock and the epoch, before this library is replaced. The key
-- may have been wiped since the epoch began: the next epoch is later even if the time is not.
local function save()
  if not epoch then return 1 end
  if (foreign_epoch(read_node().epoch, now_ms()) or 0) < epoch then
    redis.call('HSET', NODE, 'epoch', epoch_text)
  end
  redis.call('HSET', NODE, 'clock', show_id(clock_ms, clock_seq))
  return 1
end
