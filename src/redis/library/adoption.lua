
-- Adoption and fence ------------------------------------------------------------------------------
-- Only an adopted server process assigns positions. A gateway adopts it; a lone server may adopt
-- itself (ARCHITECTURE.md#adoption-and-fence).

-- `auto`, `strict` or `off`.
local FENCE = '@FENCE@'
-- Without a watermark for this long, each write checks that the server was not a replica meanwhile.
local UNWATCHED_MS = 2000
-- With the fence `strict`, an adoption ends this long after the last watermark.
local EXPIRES_MS = 10000
-- Maximum number of epochs that an epoch continues.
local MAX_CONTINUED = 8

-- The replication id at adoption. It changes when the server becomes a primary (again).
local adopted_replid
-- Whether a gateway has adopted this process, or took its watermark.
local is_confirmed = false
-- Whether the data was ever on another server, too.
local is_replicated = false
-- Server time of the last watermark.
local watched_ms = 0

-- No other server can be the primary instead of a lone one.
local function is_lone()
  return not (is_replicated or has_replicas or is_cluster)
end

-- The epoch before, and those that it continues without loss: a list, newest first.
local function chain(before, continued)
  local list = base36(before)
  local length = 1
  for former in string.gmatch(continued or '', '[0-9a-z]+') do
    if length == MAX_CONTINUED then break end
    list, length = list .. ',' .. former, length + 1
  end
  return list
end

-- Remembers in the node key whether the data was ever on another server.
local function remember_replication(node)
  if (has_replicas or is_cluster) and not is_replicated then is_replicated = true end
  if node.replicated then
    is_replicated = true
  elseif is_replicated then
    redis.call('HSET', NODE, 'replicated', '1')
  end
end

-- Begins an epoch after all that this process, the node key and the gateways know of.
-- `is_lossless`: it continues the one before, of which nothing was lost.
local function begin_epoch(node, node_epoch, seen_epoch, is_lossless, now)
  local known = foreign_epoch(epoch_text, now) or 0
  local previous = math.max(known, node_epoch or 0, seen_epoch or 0)
  -- Two processes may not know of each other, whatever their clocks: their epochs differ.
  local own = (tonumber(string.sub(run_id(), 1, 4), 16) or 0) % EPOCHS_PER_SECOND
  -- What a gateway may prove later: that this process has all data of the one before.
  local follows = ''
  if not epoch and node.run_id and node_epoch == previous and not is_replicated then
    follows = chain(previous, node.continues)
  end
  enter_epoch(math.max(epoch_at(now), previous + 1) + own)
  advance(now, 0)
  advance(clock_ms + 1, 0)
  redis.call('HSET', NODE, 'run_id', run_id(), 'replid', adopted_replid, 'epoch', epoch_text,
    'start', show_id(clock_ms, clock_seq), 'previous', base36(previous),
    'clock', show_id(clock_ms, clock_seq), 'follows', follows,
    'continues', is_lossless and follows or '')
  if previous > 0 then
    redis.call('SPUBLISH', LIVE_BROADCAST, 'epoch ' .. show_position(clock_ms, clock_seq))
  end
end

-- Whether the node key describes this process, with the replication id that it has now.
local function is_of_this_process(node, replid)
  return node.run_id == run_id() and node.replid == replid
end

-- Makes this process known. The history continues if the node key names this process, this
-- replication id and the epoch in memory; otherwise a new epoch begins. `seen` is the highest
-- position that the gateway knows. `is_durable`: the gateway was linked to the process before this
-- one, which wrote its data to disk before each reply, and the data is the same.
local function adopt(now, seen, is_durable)
  local node = read_node()
  local _, replid = replication(now, 0)
  remember_replication(node)
  local seen_ms, seen_seq, seen_epoch = foreign_position(seen, now)
  local node_epoch = foreign_epoch(node.epoch, now)
  local node_ms, node_seq = foreign_id(node.clock, now + CLOCK_AHEAD_MS)
  -- The server's time was set back by days.
  local is_reset = clock_ms > now + CLOCK_AHEAD_MS
  if is_reset then clock_ms, clock_seq = 0, 0 end
  -- After a reload of the library the clock is not in memory: the next millisecond is free.
  if not epoch then advance(now + 1, 0) end
  if node_ms then advance(node_ms, node_seq) end
  -- Ids of an epoch that continues another one are higher than those seen of that one.
  local is_lossless = is_durable and seen_ms and seen_epoch == node_epoch
    and not is_after(seen_ms, seen_seq, clock_ms, clock_seq)
  if seen_ms then advance(seen_ms, seen_seq) end
  adopted_replid = replid
  if not is_reset and node_epoch and is_of_this_process(node, replid)
    and (not epoch or epoch == node_epoch) and (seen_epoch or 0) <= node_epoch then
    enter_epoch(node_epoch)
    is_confirmed = is_confirmed or node.confirmed == epoch_text
    local start_ms, start_seq = foreign_id(node.start, now + CLOCK_AHEAD_MS)
    if is_durable and seen_epoch and start_ms
      and not is_after(seen_ms, seen_seq, start_ms, start_seq)
      and string.match(node.follows or '', '^[0-9a-z]+') == base36(seen_epoch) then
      -- The process has adopted itself before the gateway came.
      redis.call('HSET', NODE, 'continues', node.follows)
    end
  else
    is_confirmed = false
    begin_epoch(node, node_epoch, seen_epoch, is_lossless, now)
  end
  raise_retention(node, now)
end

local function refuse_unadopted()
  error(reject_call('not-adopted', 'no gateway has confirmed that this server is the primary yet;'
    .. ' retry; a gateway that is connected to the primary does so within seconds'))
end

-- Before a position is assigned: fails with `SSE not-adopted` unless this process is adopted. A
-- lone one adopts itself. Gateways notice within a second that a server was a replica, so that is
-- checked only without them.
local function ensure_adopted(now)
  local age_ms = now - watched_ms
  if epoch and age_ms >= 0 and age_ms <= UNWATCHED_MS then return end
  if FENCE == 'strict' and not (epoch and math.abs(age_ms) <= EXPIRES_MS) then
    refuse_unadopted()
  end
  identify()
  -- Writes come in bursts, and only a lone server can wait with this check.
  local is_unfenced = FENCE == 'off'
  local _, replid = replication(now, (is_unfenced or is_lone()) and REPLICATION_MS or 0)
  if epoch and replid == adopted_replid and (is_confirmed or is_unfenced or is_lone()) then
    return
  end
  if is_unfenced then return adopt(now) end
  local node = read_node()
  remember_replication(node)
  if is_lone() or (not epoch and is_of_this_process(node, replid)
    and node.confirmed == node.epoch) then
    return adopt(now)
  end
  refuse_unadopted()
end

-- What a gateway learns of this server, as name/value pairs.
local function describe(node, now, state)
  -- Streams need the watermark even if the recorder's key holds something else.
  local unrecorded = attempt('HGET', RECORDER, 'unrecorded')
  return { 'state', state, 'h', show_position(clock_ms, clock_seq), 'start', node.start or '',
    'previous', node.previous or '', 'continues', node.continues or '',
    'unrecorded', unrecorded or '', 'raised_ms', node.raised_ms or '0',
    'shorter_ms', node.shorter_ms or '0', 'now_ms', string.format('%d', now),
    'replicated', (is_replicated or has_replicas) and '1' or '0',
    -- The node key does not say so yet.
    'unmarked', has_replicas and not node.replicated and '1' or '0' }
end

-- The same of a server that is not adopted: the last epoch and position that it knows, its process.
local function describe_unknown(node, now)
  local known_epoch = math.max(epoch or 0, foreign_epoch(node.epoch, now) or 0)
  local ms, seq = now, 0
  local node_ms, node_seq = foreign_id(node.clock, now + CLOCK_AHEAD_MS)
  if node_ms and is_after(node_ms, node_seq, ms, seq) then ms, seq = node_ms, node_seq end
  if is_after(clock_ms, clock_seq, ms, seq) then ms, seq = clock_ms, clock_seq end
  local replicated = is_replicated or has_replicas or node.replicated
  return { 'state', 'unknown', 'known', show_id(ms, seq) .. '.' .. base36(known_epoch),
    'run_id', run_id(), 'replicated', replicated and '1' or '0' }
end

-- sse_watermark 1 <node key> <seen>: everything up to the returned position has arrived on the
-- connection that called. `seen` is the highest position that the gateway knows of this server;
-- empty: the caller is no gateway. The state is `adopted`, `replica` or `unknown`. A replica
-- returns only the epoch in its memory, an unknown server what it knows.
local function watermark(_, args)
  local now = now_ms()
  local own_role, replid = replication(now, REPLICATION_MS)
  if own_role ~= 'master' then return { 'state', 'replica', 'epoch', epoch_text or '' } end
  local node = read_node()
  local seen_ms, seen_seq, seen_epoch = foreign_position(args[1], now)
  if not epoch or node.epoch ~= epoch_text or not is_of_this_process(node, replid)
    or replid ~= adopted_replid or (seen_epoch and seen_epoch > epoch)
    or clock_ms > now + CLOCK_AHEAD_MS then
    return describe_unknown(node, now)
  end
  if seen_epoch == epoch then advance(seen_ms, seen_seq) end
  advance(now, 0)
  if seen_epoch then watched_ms, is_confirmed = now, true end
  return describe(node, now, 'adopted')
end

-- sse_adopt 1 <node key> <seen> [DURABLE] [REPLICATED]: adopts this process if its watermark is
-- `unknown`. DURABLE: see `adopt`. REPLICATED: the gateway knows that the server is not lone.
local function adopt_call(_, args)
  local now = now_ms()
  if replication(now, 0) ~= 'master' then
    return { 'state', 'replica', 'epoch', epoch_text or '' }
  end
  local is_durable = false
  for i = 2, #args do
    local option = string.upper(args[i])
    if option == 'DURABLE' then is_durable = true
    elseif option == 'REPLICATED' then is_replicated = true
    else return reject_call('usage', 'unknown option ' .. string.sub(args[i], 1, 32)) end
  end
  adopt(now, args[1], is_durable)
  watched_ms, is_confirmed = now, true
  local node = read_node()
  if node.confirmed ~= epoch_text then redis.call('HSET', NODE, 'confirmed', epoch_text) end
  return describe(node, now, 'adopted')
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
