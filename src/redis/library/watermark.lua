
-- Watermark, adoption, saving ---------------------------------------------------------------------

-- What a gateway learns of this server, as name/value pairs.
local function describe(node, now)
  -- Streams need the watermark even if the recorder's key holds something else.
  local unrecorded = node_key == BROADCAST_NODE and attempt('HGET', RECORDER, 'unrecorded')
  local reply = { 'state', 'adopted', 'h', show_position(clock_ms, clock_seq),
    'start', node.start or '', 'previous', node.previous or '', 'unrecorded', unrecorded or '',
    'raised_ms', node.raised_ms or '0', 'shorter_ms', node.shorter_ms or '0',
    'retentions', RETENTIONS, 'now_ms', string.format('%d', now) }
  local function add(name, value)
    reply[#reply + 1], reply[#reply + 2] = name, value
  end
  -- What is not true of most servers.
  if (node.continues or '') ~= '' then add('continues', node.continues) end
  if is_replicated or has_replicas then add('replicated', '1') end
  had_values = had_values or node.kept ~= nil
  if is_cluster or had_values then add('kept', '1') end
  -- The node key does not say so yet.
  if has_replicas and not node.replicated then add('unmarked', '1') end
  return reply
end

-- The same of a server that is not adopted: the last epoch and position that it knows, its process,
-- and its slots.
local function describe_unknown(node, now)
  local known_epoch = math.max(epoch or 0, foreign_epoch(node.epoch, now) or 0)
  local ms, seq = now, 0
  local node_ms, node_seq = foreign_id(node.clock, now + CLOCK_AHEAD_MS)
  if node_ms and is_after(node_ms, node_seq, ms, seq) then ms, seq = node_ms, node_seq end
  if is_after(clock_ms, clock_seq, ms, seq) then ms, seq = clock_ms, clock_seq end
  local replicated = is_replicated or has_replicas or node.replicated
  return { 'state', 'unknown', 'known', show_id(ms, seq) .. '.' .. base36(known_epoch),
    'run_id', run_id(), 'replicated', replicated and '1' or '0', 'slots', own_slots or '',
    'adopted_slots', adopted_text, 'yielded', (is_yielded or node.yielded == '1') and '1' or '0' }
end

-- The epoch of a replica that was adopted when it was a primary last, and has not loaded the data
-- of another server since then. Also remembers that the server was a replica: before it assigns
-- another position, its replication id is compared.
local function describe_replica()
  watched_ms, is_unverified = 0, false
  local is_former = epoch and former_replid == adopted_replid
  return { 'state', 'replica', 'epoch', is_former and epoch_text or '' }
end

-- sse_watermark 1 <node key> <seen>: everything up to the returned position has arrived on the
-- connection that called. `seen` is the highest position that the gateway knows of this server;
-- empty: the caller is no gateway. The state is `adopted`, `replica` or `unknown`. A replica
-- returns only the epoch in its memory, an unknown server what it knows.
local function watermark(keys, args)
  local now = now_ms()
  identify()
  local own_role, replid = replication(now, REPLICATION_MS)
  if own_role ~= 'master' then return describe_replica() end
  local is_known = true
  local key = node_key
  if is_cluster then
    key = keys[1]
    is_known = key == node_key and read_slots(now, SLOTS_MS) == adopted_text
      and higher_epoch <= (epoch or 0)
  end
  local node = read_node(key, WATERMARK_FIELDS)
  local seen_ms, seen_seq, seen_epoch = foreign_position(args[1], now)
  if not is_known or not epoch or node.epoch ~= epoch_text
    or not is_of_this_process(node, replid, now) or replid ~= adopted_replid
    or (seen_epoch and seen_epoch > epoch) or clock_ms > now + CLOCK_AHEAD_MS then
    return describe_unknown(read_node(key), now)
  end
  if seen_epoch == epoch then advance(seen_ms, seen_seq) end
  advance(now, 0)
  local reply = describe(node, now)
  if seen_epoch then
    watched_ms, is_confirmed = now, true
  elseif is_confirmed then
    reply[#reply + 1] = 'confirmed'
    reply[#reply + 1] = '1'
  end
  return reply
end

-- sse_given 0: what this server was when it gave slots away that it does not own any more. From now
-- on, if they come back, they must be adopted again. The state is `given`; `replica` if it is one
-- now (without slots, it follows the new owner) and still has its memory; or `unknown` if it may
-- not have been the primary all the time.
local function given()
  local now = now_ms()
  identify()
  local own_role, replid = replication(now, 0)
  local is_same = replid == adopted_replid
    or (own_role ~= 'master' and former_replid == adopted_replid)
  if not epoch or not is_same then return { 'state', 'unknown' } end
  if is_cluster then read_slots(now, 0) end
  advance(now, 0)
  return { 'state', own_role == 'master' and 'given' or 'replica',
    'h', show_position(clock_ms, clock_seq), 'slots', own_slots or '',
    'continues', last_node and last_node.continues or '' }
end

-- sse_vouched 1 <key of a slot>: the epochs of other servers that this one continues for the slot,
-- as a list. Fails with `SSE not-adopted` if the server has not been adopted for it.
local function vouched_epochs(keys)
  if not is_adopted_slot(keys[1]) then refuse_unadopted() end
  return vouched[redis.call('CLUSTER', 'KEYSLOT', keys[1])] or ''
end

-- The options of sse_adopt; nil and a text if they are invalid.
local function adopt_options(args, now)
  local a = { seen = args[1], vouchers = {}, vouched_epoch = 0 }
  local i = 2
  while args[i] do
    local option = string.upper(args[i])
    if option == 'DURABLE' then a.is_durable = true
    elseif option == 'HANDED-OVER' then a.is_handed_over = true
    elseif option == 'REPLICATED' then is_replicated = true
    elseif option == 'KEPT' then had_values = true
    elseif option == 'LOST' and args[i + 1] then
      a.lost = args[i + 1]
      i = i + 1
    elseif option == 'FLOOR' and args[i + 1] then
      a.floor = args[i + 1]
      i = i + 1
    elseif option == 'SLOTS' and args[i + 1] then
      a.slots = args[i + 1]
      i = i + 1
    elseif option == 'VOUCH' and args[i + 2] then
      local epochs = {}
      for text in string.gmatch(args[i + 2], '[0-9a-z]+') do
        local number_of_epoch = foreign_epoch(text, now)
        if number_of_epoch and #epochs < MAX_CONTINUED then
          epochs[#epochs + 1] = text
          a.vouched_epoch = math.max(a.vouched_epoch, number_of_epoch)
        end
      end
      local list = table.concat(epochs, ',')
      if list ~= '' then
        each_slot(args[i + 1], function(slot) a.vouchers[slot] = list end)
      end
      i = i + 2
    else
      return nil, 'unknown or incomplete option ' .. string.sub(args[i], 1, 32)
    end
    i = i + 1
  end
  return a
end

-- sse_adopt 1 <node key> <seen>
--   [FLOOR <position>] [DURABLE] [HANDED-OVER] [REPLICATED] [KEPT] [SLOTS <slots>]
--   [VOUCH <slots> <epochs>].. [LOST <position>]
-- Adopts this process if its watermark is `unknown`; see `adopt`. REPLICATED: the gateway knows
-- that the server is not lone. KEPT: clients may have retained values. SLOTS: only these. LOST: a
-- rival has accepted events up to this position. VOUCH: the slots `100-200,300` moved here from a
-- server that was alive in these epochs (`<epoch>,<epoch>`) until then.
local function adopt_call(keys, args)
  local now = now_ms()
  if replication(now, 0) ~= 'master' then return describe_replica() end
  local a, wrong = adopt_options(args, now)
  if not a then return reject_call('usage', wrong) end
  identify()
  if is_cluster then a.node_key = keys[1] end
  local former = epoch
  local node = adopt(now, a)
  if is_yielded then
    is_yielded = false
    write_node(node, { yielded = '0' })
  end
  if a.lost then lose(node, a.lost, former, now) end
  watched_ms, is_confirmed = now, true
  if node.confirmed ~= epoch_text then write_node(node, { confirmed = epoch_text }) end
  return describe(node, now)
end

-- sse_save 1 <node key>: stores the clock and the epoch, before this library is replaced. The key
-- may have been wiped since the epoch began: the next epoch is later even if the time is not.
local function save(keys)
  if not epoch then return 1 end
  local node
  if is_cluster and keys[1] ~= node_key then
    node = move_node(keys[1])
  else
    node = read_node(node_key)
  end
  if (foreign_epoch(node.epoch, now_ms()) or 0) < epoch then
    write_node(node, { epoch = epoch_text })
  end
  write_node(node, { clock = show_id(clock_ms, clock_seq) })
  return 1
end
