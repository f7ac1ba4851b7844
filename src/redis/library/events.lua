
-- Events ------------------------------------------------------------------------------------------

-- Topics older than the retention are dropped this often.
local TOPICS_CLEANUP_MS = 1000
local LISTED_AHEAD_MS = 1000
local topics_cleaned_ms = 0

-- Why an event is rejected: code and text. The same rules as in envelope.rs.
local function fault(channel, kind, payload, o)
  if not channel then
    return 'bad-channel',
      'the channel must be user:<id>:events or broadcast:<topic>,'
      .. ' with 1 to 256 bytes of printable ASCII'
      .. ' without space, comma and * ? [ ] { } \\'
  elseif not is_type(kind) then
    return 'bad-type', 'the type must be a string of 1 to 128 bytes without control characters'
  elseif string.sub(kind, 1, 4) == 'sse.' then
    return 'reserved-type',
      'types that begin with sse. are reserved for the gateway; choose another name'
  elseif #payload > channel.rule.max_event_bytes then
    return 'too-large', 'the payload has ' .. #payload .. ' bytes, max_event_bytes (of history, or'
      .. ' of a rule in channels) is ' .. string.format('%d', channel.rule.max_event_bytes)
  elseif not is_utf8(payload) then
    return 'not-utf8', 'the payload is not UTF-8'
  end
  return option_fault(channel, o)
end

-- The id of the last entry that a log ever had, also if it was trimmed; 0-0 without a log. Gateways
-- call it, too (sse_last 1 <log>): the reply of XINFO has entries, and takes long to parse.
local function last_generated(log)
  local info = redis.pcall('XINFO', 'STREAM', log)
  -- Without a log it is an error, which has no members. Others, such as a missing permission, must
  -- not pass for an empty log.
  if info.err and not string.find(info.err, 'no such key', 1, true) then error(info) end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return '0-0'
end

-- The id and the epoch of the last entry that a log ever had; 0-0 without a log. The epoch of an
-- entry that was trimmed, or that another client wrote, is not known: nil. If the key holds no log:
-- nil and a text.
local function last_of(log)
  local last, wrong = attempt('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if wrong then return nil, nil, wrong end
  local entry = last[1]
  if entry then
    local fields = entry[2]
    return entry[1], fields[3] == 'e' and parse_epoch(fields[4]) and fields[4] or nil
  end
  if redis.call('EXISTS', log) == 0 then return '0-0', '0' end
  -- The log is empty because it was trimmed.
  return last_generated(log)
end

-- Lists the topic of a broadcast with a time that no cursor from before this event exceeds; a busy
-- topic is listed a second ahead. From time to time drops the topics older than the retention.
-- Returns a text if the key holds something else.
local function list_topic(channel, now)
  local ms = math.max(now, clock_ms) + LISTED_AHEAD_MS
  local _, wrong = attempt('ZADD', TOPICS, ms, channel.topic)
  if wrong then return wrong end
  channel.listed_ms = ms
  if now - topics_cleaned_ms >= TOPICS_CLEANUP_MS or now < topics_cleaned_ms then
    topics_cleaned_ms = now
    redis.call('ZREMRANGEBYSCORE', TOPICS, '-inf', '(' .. string.format('%d',
      now - LONGEST_RETENTION_MS))
  end
end

-- A channel that was written to recently has the position of its last event, that event's ms and
-- epoch, and the expiry of its log. This spares a busy log two commands for each event. A log that
-- differs (deleted, replaced, written to by another client) is read. On a cluster this is checked
-- for each event: a slot may have been away for so short a time that the server has not noticed.

-- Appends to a log that was written recently. Returns the position and the predecessor; nil: the
-- log must be read first.
local function add_to_recent(channel, now, retry, kind, payload, o)
  local predecessor, rule = channel.position, channel.rule
  if not predecessor or channel.epoch ~= epoch or channel.ms + rule.retention_ms <= now then
    return nil
  end
  if channel.topic and math.max(now, clock_ms) >= channel.listed_ms then return nil end
  if is_cluster then
    local id = string.match(predecessor, '^[^.]+')
    if #redis.call('XREVRANGE', channel.log, '+', '(' .. id, 'COUNT', 1) > 0 then return nil end
  end
  local ms, seq = next_id(now)
  local reply = redis.pcall('XADD', channel.log, 'NOMKSTREAM', 'MAXLEN', '~', rule.max_len,
    show_id(ms, seq), 'p', predecessor, 'e', epoch_text, 'r', retry, 't', kind, 'd', payload,
    unpack(o.fields))
  if type(reply) ~= 'string' then return nil end
  local position = assign(ms, seq)
  channel.ms, channel.position = ms, position
  -- By the position and not by the time, which may have been set back: a cursor must not outlive
  -- what it points to unnoticed.
  if channel.expires_ms < ms + rule.retention_ms then
    channel.expires_ms = ms + rule.retention_ms + rule.expiry_slack_ms
    redis.call('PEXPIREAT', channel.log, string.format('%d', channel.expires_ms))
  end
  return position, predecessor
end

-- Appends to any log. Returns the position and the predecessor; or nil and a text if a key holds
-- something else.
local function add_to_any(channel, now, retry, kind, payload, o)
  local log = channel.log
  local last, last_epoch, wrong = last_of(log)
  local other = is_cluster and last_epoch and foreign_epoch(last_epoch, now)
  if other and other > epoch then
    -- The slot came from a server with a later epoch: the next adoption begins one after it.
    higher_epoch = math.max(higher_epoch, other)
    refuse_unadopted()
  end
  wrong = wrong or (channel.topic and list_topic(channel, now))
  if wrong then return nil, wrong end
  local ms, seq = next_id(now)
  local last_ms, last_seq = foreign_id(last, now + CLOCK_AHEAD_MS)
  if last_ms and not is_after(ms, seq, last_ms, last_seq) then
    ms, seq = following(last_ms, last_seq)
  end
  local predecessor = last .. '.' .. (last_epoch or epoch_text)
  if not last_ms then
    -- No clock assigned this id, and nothing could follow it. The log starts again after a position
    -- that no client has, so all clients get `trimmed`. (An expiry in the past deletes, and needs
    -- no other permission than the one below.)
    redis.call('PEXPIREAT', log, 1)
    predecessor = assign(ms, seq)
    ms, seq = following(ms, seq)
  end
  redis.call('XADD', log, 'MAXLEN', '~', channel.rule.max_len, show_id(ms, seq),
    'p', predecessor, 'e', epoch_text, 'r', retry, 't', kind, 'd', payload, unpack(o.fields))
  local position = assign(ms, seq)
  channel.ms, channel.epoch, channel.position = ms, epoch, position
  channel.expires_ms = ms + channel.rule.retention_ms + channel.rule.expiry_slack_ms
  redis.call('PEXPIREAT', log, string.format('%d', channel.expires_ms))
  return position, predecessor
end

-- A live message; `head` is what precedes `retry`. One concatenation, because payloads are long.
local function live_text(head, channel, retry, kind, payload, o)
  local name = channel.topic and channel.topic .. ' ' .. kind or kind
  return head .. retry .. o.flags .. ' ' .. name .. '\n' .. o.lines .. payload
end

-- Appends one event: log first, then the rest, then the live message. Returns the position; the
-- position and `duplicate` if an event with this key is in the log already; or nil, a code and a
-- text if the event can never be appended in this state. An ephemeral event has no position: it is
-- published only.
local function append(channel, kind, payload, o)
  local now = now_ms()
  ensure_adopted(now)
  if not is_adopted_channel(channel) then refuse_unadopted() end
  local retry = o.retry or '-'
  if o ~= NO_OPTIONS then
    if o.unseen then o.unseen_ms = now + duration_ms(o.unseen) end
    write_options(o)
  end
  local dedupe = o.key and (PREFIX .. 'dedupe:' .. channel.slot .. ' ' .. o.key)
  if dedupe then
    local before, wrong = attempt('GET', dedupe)
    if wrong then return nil, 'wrong-type', wrong end
    if before and foreign_position(before, now, CLOCK_AHEAD_MS) then return before, 'duplicate' end
  end
  if channel.rate then
    local code, text = rate_fault(channel, now)
    if code then return nil, code, text end
  end
  if o.is_ephemeral or channel.is_ephemeral then
    if o.trace then redis.call('SPUBLISH', channel.live, 'trace - ' .. o.trace) end
    redis.call('SPUBLISH', channel.live, live_text('ephemeral ', channel, retry, kind, payload, o))
    return ''
  end
  local is_kept = o.keep or o.forget
  if is_kept then
    local code, text = prepare_keep(channel, o, now)
    if code then return nil, code, text end
  end
  if o.unseen then
    local code, text = prepare_unseen(channel)
    if code then return nil, code, text end
  end
  local position, predecessor = add_to_recent(channel, now, retry, kind, payload, o)
  if not position then
    position, predecessor = add_to_any(channel, now, retry, kind, payload, o)
    if not position then return nil, 'wrong-type', predecessor end
  end
  if dedupe then redis.call('SET', dedupe, position, 'PX', DEDUPE_WINDOW_MS) end
  if is_kept then keep(channel, o, now, position, retry, kind, payload) end
  if o.unseen then await_sight(channel, position, o, kind, payload) end
  -- A message of its own, which gateways of earlier versions ignore.
  if o.trace then redis.call('SPUBLISH', channel.live, 'trace ' .. position .. ' ' .. o.trace) end
  redis.call('SPUBLISH', channel.live,
    live_text(position .. ' ' .. predecessor .. ' ', channel, retry, kind, payload, o))
  return position
end

-- FCALL sse_publish 1 <channel> <type> <payload> and options. Returns also `duplicate` if the event
-- was in the log already.
local function publish(keys, args)
  if #keys ~= 1 or #args < 2 then
    return reject_call('usage',
      'FCALL @F@_publish 1 <channel> <type> <payload> ' .. PUBLISH_OPTIONS)
  end
  local o, wrong = options(args, 3)
  if wrong then return reject_call('usage', wrong .. '; use ' .. PUBLISH_OPTIONS) end
  local channel, other = channel_of(keys[1])
  local code, text = fault(channel, args[1], args[2], o)
  if code then return reject_call(code, other or text) end
  local position
  position, code, text = append(channel, args[1], args[2], o)
  if not position then return reject_call(code, text) end
  return position, code
end
