
-- Rivals ------------------------------------------------------------------------------------------
-- Two primaries behind one address have two histories. A gateway that reaches both decides for one
-- of them, and the other one yields: it accepts no events until a gateway adopts it
-- (ARCHITECTURE.md#rivals).

-- Positions of events on rivals of which the streams were notified. Also the field `lost`: the last
-- one.
local MAX_LOSSES = 1000
local known_losses, losses = {}, 0

-- sse_yield 1 <node key> <epoch> [FORCE]: gateways use another server at this address, in this
-- epoch. The state is `yielded`, with the last position that this process assigned in `lost`
-- (empty: none, or it was not the primary); `in-use`, if gateways use this server in a later epoch;
-- or `replica`. FORCE: also then, because new connections do not reach this server any more.
local function yield(_, args)
  local now = now_ms()
  identify()
  local own_role, replid = replication(now, 0)
  if is_cluster or own_role ~= 'master' then return { 'state', 'replica' } end
  local other = foreign_epoch(args[1], now)
  if not other then return reject_call('usage', 'FCALL @F@_yield 1 <node key> <epoch> [FORCE]') end
  local node = read_node(node_key)
  remember_replication(node)
  local is_adopted = epoch and replid == adopted_replid
  if is_adopted and is_confirmed and epoch > other and args[2] ~= 'FORCE' then
    return { 'state', 'in-use', 'epoch', epoch_text }
  end
  -- Others accept nothing in any case, and may become the primary in a failover.
  if not is_adopted and not is_lone() then
    return { 'state', 'yielded', 'lost', is_yielded and last_assigned or '' }
  end
  write_node(node, { yielded = '1', confirmed = '' })
  is_yielded, is_confirmed, watched_ms = true, false, 0
  epoch, epoch_text = nil, nil
  return { 'state', 'yielded', 'lost', last_assigned }
end

-- Events up to `position` of a rival are lost: a new epoch notifies all streams, once. `former`:
-- the epoch before this call.
local function lose(node, position, former, now)
  if node.lost == position or known_losses[position] then return end
  if losses >= MAX_LOSSES then known_losses, losses = {}, 0 end
  known_losses[position], losses = true, losses + 1
  local is_begun = former and former ~= epoch and (node.continues or '') == ''
  if not is_begun then
    local other = foreign_epoch(string.match(position, '%.([0-9a-z]+)$'), now)
    begin_epoch(node, epoch, other or 0, '', '', now)
  end
  write_node(node, { lost = position })
end
