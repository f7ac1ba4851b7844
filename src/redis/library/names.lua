#!lua name=@LIBRARY@
-- The function library of the gateway (ARCHITECTURE.md#function-library). Whatever must be atomic
-- is done here. The files of this directory form one library in the order of library.rs, which
-- fills in the placeholders between @ signs. Lua has no rollback: a function first reads every key
-- that it needs, then appends to the log, then writes the rest.

local PREFIX = '@KEY_PREFIX@'
local CHANNEL_PREFIX = '@CHANNEL_PREFIX@'

-- Settings. A library with other settings has a higher generation.
local DEDUPE_WINDOW_MS = @DEDUPE_WINDOW_MS@
-- The longest retention of a channel; a text that differs if any retention does, and begins with
-- the shortest one.
local LONGEST_RETENTION_MS = @LONGEST_RETENTION_MS@
local RETENTIONS = '@RETENTIONS@'

-- All broadcasts, and what belongs to no user, are in one slot.
local BROADCAST = '{' .. CHANNEL_PREFIX .. 'broadcast}'
local LIVE = PREFIX .. 'live:'
local LIVE_BROADCAST = LIVE .. BROADCAST
local TOPICS = PREFIX .. 'topics:' .. BROADCAST
local RECORDER = PREFIX .. 'recorder:' .. BROADCAST
local REJECTED = PREFIX .. 'rejected:' .. BROADCAST

local function reject_call(code, text)
  return redis.error_reply('SSE ' .. code .. ': ' .. text)
end

local function is_name(text)
  return #text >= 1 and #text <= 256 and not string.find(text, '[^\33-\126]')
    and not string.find(text, '[,%*%?%[%]{}\\]')
end

-- The slot name of a channel, which ends the names of its keys: {user:42:events} or
-- {broadcast}:news. For a broadcast also the topic. nil: the name is invalid.
local function parse_channel(name)
  local topic
  if string.sub(name, 1, #BROADCAST + 1) == BROADCAST .. ':' then
    topic = string.sub(name, #BROADCAST + 2)
  else
    if CHANNEL_PREFIX ~= '' and string.sub(name, 1, #CHANNEL_PREFIX) == CHANNEL_PREFIX then
      name = string.sub(name, #CHANNEL_PREFIX + 1)
    end
    local user = string.match(name, '^user:(.*):events$')
    if user and is_name(user) then return '{' .. CHANNEL_PREFIX .. name .. '}' end
    topic = string.match(name, '^broadcast:(.*)$')
  end
  if topic and is_name(topic) then return BROADCAST .. ':' .. topic, topic end
  return nil
end

-- Keys that hold something else -----------------------------------------------------------------

local function wrong_type(key)
  local name = '"' .. string.gsub(key, '[^ -~]', '?') .. '"'
  return 'the key ' .. name .. ' holds a value of a type that the gateway never writes; run DEL '
    .. name
end

-- redis.call for a key whose value another client may have replaced. Returns nil and a text that
-- names the key and the fix if the value has the wrong type.
local function attempt(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, wrong_type(key) end
  error(reply)
end

-- The same where the function cannot continue without the key: it ends with `SSE wrong-type`.
local function call(command, key, ...)
  local reply, wrong = attempt(command, key, ...)
  if wrong then error(reject_call('wrong-type', wrong)) end
  return reply
end
