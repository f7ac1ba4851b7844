
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

-- Whether a gateway has adopted this process, or took its watermark.
local is_confirmed = false
-- Whether the data was ever on another server, too.
local is_replicated = false
-- Whether another server at the same address is used instead (rivals.lua).
local is_yielded = false
-- Server time of the last watermark.
local watched_ms = 0
-- What the node key said when it was read or written last.
local last_node
-- Whether channels ever had retained values here: also if the data was wiped, because clients have
-- values that they must discard.
local had_values = false
-- The highest epoch of another server that a log contains: an own one must follow it.
local higher_epoch = 0

-- No other server can be the primary instead of a lone one.
local function is_lone()
  return not (is_replicated or has_replicas or is_cluster or is_yielded)
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

-- Remembers in the node key whether the data was ever on another server, and reads from it whether
-- this server has yielded to another one.
local function remember_replication(node)
  if has_replicas or is_cluster or node.replicated then is_replicated = true end
  if node.yielded == '1' then is_yielded = true end
  if is_replicated and not node.replicated then write_node(node, { replicated = '1' }) end
end

-- Begins an epoch after all that this process, the node key and the gateways know of: after
-- `previous`, the one before on this server, and after `other`, one of another server. `continues`:
-- a list of epochs of which nothing was lost.
local function begin_epoch(node, previous, other, continues, follows, now)
  -- Two processes may not know of each other, whatever their clocks: their epochs differ.
  local own = (tonumber(string.sub(run_id(), 1, 4), 16) or 0) % EPOCHS_PER_SECOND
  enter_epoch(math.max(epoch_at(now), previous + 1, other + 1) + own)
  advance(now, 0)
  advance(clock_ms + 1, 0)
  local start = show_id(clock_ms, clock_seq)
  write_node(node, { run_id = run_id(), replid = adopted_replid, epoch = epoch_text, start = start,
    clock = start, previous = base36(previous), follows = follows, continues = continues,
    myid = own_id ~= '' and own_id or nil, kept = had_values and '1' or nil })
  -- On a cluster, only one server has this slot. Watermarks announce the epochs of the others.
  if previous > 0 and node_key == BROADCAST_NODE then
    redis.call('SPUBLISH', LIVE_BROADCAST, 'epoch ' .. show_position(clock_ms, clock_seq))
  end
end

-- If the first replica connected or the backlog was freed, there is no id of a former primary,
-- which a server that was a replica has until then. Both within this time would need a
-- `repl-backlog-ttl` as short.
local SAME_PRIMARY_MS = 5000

-- Whether the node key describes this process, which was the primary ever since.
local function is_of_this_process(node, replid, now)
  if node.run_id ~= run_id() then return false end
  return node.replid == replid or (epoch and node.epoch == epoch_text
    and node.replid == adopted_replid and not was_replica
    and math.abs(now - adopted_replid_ms) <= SAME_PRIMARY_MS)
end

-- Whether a node key came here with its slot from another server. (That of a former primary, which
-- had the same slots, does not count.)
local function is_of_other_node(node)
  return node.myid and node.myid ~= own_id and not was_replica
end

-- Removes such a node key. An own epoch must follow what it says.
local function leave_node_of_other(node, now)
  higher_epoch = math.max(higher_epoch, foreign_epoch(node.epoch, now) or 0)
  local ms, seq = foreign_id(node.clock, now + CLOCK_AHEAD_MS)
  if ms then advance(ms, seq) end
  redis.call('DEL', node_key)
  vouched = {}
  return {}
end

-- Takes over another node key. It says what the former one said, which may be out of reach.
local function move_node(key)
  local node = last_node
  node_key = key
  redis.call('DEL', key)
  local words = {}
  for slot, epochs in pairs(vouched) do
    words[#words + 1], words[#words + 2] = 'slot:' .. slot, epochs
  end
  in_parts('HSET', words)
  write_node(node, node)
  return node
end

-- Makes this process known. The history continues if the node key names this process, this
-- replication id and the epoch in memory; otherwise a new epoch begins. What the caller knows:
-- `seen`, the highest position of this server; `is_durable`: the gateway was linked to the process
-- before this one, which wrote its data to disk before each reply, and the data is the same;
-- `is_handed_over`: the former primary follows this one, and lost nothing of what it had; `floor`:
-- the highest position of any server of the cluster; `slots`: those of which it knows the former
-- servers; `vouchers`: slot -> epochs in which a former server of that slot lived until it moved
-- here.
local function adopt(now, a)
  identify()
  local _, replid = replication(now, 0)
  local is_moved = is_cluster and epoch and last_node and a.node_key ~= node_key
  if is_cluster then read_slots(now, 0) end
  local node
  if is_moved then
    node = move_node(a.node_key)
  else
    node_key = a.node_key or node_key
    node = read_node(node_key)
    if is_cluster and not epoch then
      if is_of_other_node(node) then node = leave_node_of_other(node, now) else load_vouchers() end
    end
  end
  last_node = node
  -- Since a slot was lost, only the memory knows which ones were adopted.
  local before = is_cluster and (epoch and adopted_slots or slot_set(node.slots))
  local slots = is_cluster and known_slots(a.slots or own_slots)
  remember_replication(node)
  local seen_ms, seen_seq, seen_epoch = foreign_position(a.seen, now)
  local node_epoch = foreign_epoch(node.epoch, now)
  local node_ms, node_seq = foreign_id(node.clock, now + CLOCK_AHEAD_MS)
  -- The server's time was set back by days.
  local is_reset = clock_ms > now + CLOCK_AHEAD_MS
  if is_reset then clock_ms, clock_seq = 0, 0 end
  -- After a reload of the library, or if another server was the primary, the clock is not in
  -- memory: the next millisecond is free.
  if not epoch or epoch ~= node_epoch then advance(now + 1, 0) end
  if node_ms then advance(node_ms, node_seq) end
  -- A file on disk proves nothing if the data is that of another server.
  local is_same_server = not is_replicated or (own_id ~= '' and node.myid == own_id)
  -- A process that was the primary earlier may have assigned positions of its former epoch again.
  local is_proved = seen_ms and not (epoch and epoch ~= node_epoch and is_unverified)
    and (a.is_handed_over or (a.is_durable and is_same_server))
  -- Ids of an epoch that continues another one are higher than those seen of that one.
  local is_lossless = is_proved and seen_epoch == node_epoch
    and not is_after(seen_ms, seen_seq, clock_ms, clock_seq)
  if seen_ms then advance(seen_ms, seen_seq) end
  -- Events of other servers, in logs that are here now.
  local other = foreign_epoch(base36(higher_epoch), now) or 0
  local is_same_process = is_of_this_process(node, replid, now)
  -- Streams have come here with a position of another server.
  if is_cluster and is_same_process and node_epoch and (seen_epoch or 0) > node_epoch then
    other, seen_epoch = math.max(other, seen_epoch), node_epoch
  end
  if is_cluster and has_gained(slots, before) then
    local floor_ms, floor_seq, floor_epoch = foreign_position(a.floor, now)
    if floor_ms then advance(floor_ms, floor_seq) end
    other = math.max(other, floor_epoch or 0, a.vouched_epoch or 0)
  end
  adopted_replid, adopted_replid_ms, is_unverified = replid, now, false
  -- A process that ended may have taken events with it that had just moved here.
  local is_restored = not epoch and node.run_id and not is_same_process
  if not is_reset and node_epoch and is_same_process
    and (not epoch or epoch == node_epoch) and (seen_epoch or 0) <= node_epoch then
    enter_epoch(node_epoch)
    if node.replid ~= replid then write_node(node, { replid = replid }) end
    is_confirmed = is_confirmed or node.confirmed == epoch_text
    local start_ms, start_seq = foreign_id(node.start, now + CLOCK_AHEAD_MS)
    if other >= epoch then
      begin_epoch(node, epoch, other, chain(epoch, node.continues), '', now)
    elseif is_proved and start_ms and not is_after(seen_ms, seen_seq, start_ms, start_seq)
      and string.match(node.follows or '', '^[0-9a-z]+') == base36(seen_epoch) then
      -- The process has adopted itself, or another gateway has adopted it, before this one came.
      write_node(node, { continues = node.follows })
    end
  else
    is_confirmed = false
    local known = foreign_epoch(epoch_text, now) or 0
    local previous = math.max(known, node_epoch or 0, seen_epoch or 0)
    -- What a gateway may prove later: that this process has all data of the one before.
    local follows = ''
    if node.run_id and node_epoch == previous then
      follows = chain(previous, node.continues)
    end
    local continues = is_lossless and follows or ''
    begin_epoch(node, previous, other, continues, follows, now)
    if is_cluster and continues == '' then forget_vouchers() end
  end
  if is_cluster then adopt_slots(node, slots, before, is_restored and {} or a.vouchers) end
  raise_retention(node, now)
  return node
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
  local is_unfenced = FENCE == 'off' and not is_cluster
  local _, replid = replication(now, (is_unfenced or is_lone()) and REPLICATION_MS or 0)
  if epoch and replid == adopted_replid and (is_confirmed or is_unfenced or is_lone()) then
    return
  end
  -- On a cluster, the node key is in another slot than the event.
  if is_cluster then refuse_unadopted() end
  if is_unfenced then return adopt(now, {}) end
  local node = read_node(node_key)
  remember_replication(node)
  if is_lone() or (not epoch and is_of_this_process(node, replid, now)
    and node.confirmed == node.epoch) then
    return adopt(now, {})
  end
  refuse_unadopted()
end

-- The same before a write to the slot of a name with a hash tag.
local function ensure_adopted_slot(name, now)
  ensure_adopted(now)
  if not is_adopted_slot(name) then refuse_unadopted() end
end
