
-- Positions -------------------------------------------------------------------------------------
-- A position is <ms>-<seq>.<epoch>: an id of a Redis stream and the epoch in which this server
-- assigned it. Positions are ordered by epoch first. Epochs are numbers, written in base 36.

-- Maximum distance of a position from the server's time, in ms: 7 days. No clock of this library
-- runs further ahead, so a later position is forged, or the server's time was set back by days.
local MAX_AHEAD_MS = 604800000
-- The clock itself may be slightly further ahead: a new epoch begins after a position that is just
-- within MAX_AHEAD_MS.
local CLOCK_AHEAD_MS = MAX_AHEAD_MS + 1000
-- Numbers are doubles: above this, adding 1 may change nothing.
local MAX_SEQ = 9007199254740991
-- An epoch is the second of its start times this, plus a number that differs between processes.
local EPOCHS_PER_SECOND = 1296
local DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'

local function base36(number)
  local text = ''
  repeat
    local digit = number % 36
    text = string.sub(DIGITS, digit + 1, digit + 1) .. text
    number = (number - digit) / 36
  until number == 0
  return text
end

local function parse_epoch(text)
  if not text or #text > 9 or not string.find(text, '^[0-9a-z]+$') then return nil end
  return tonumber(text, 36)
end

local function epoch_at(ms)
  return math.floor(ms / 1000) * EPOCHS_PER_SECOND
end

-- An epoch that another client may have written. nil: malformed, or not possible at this time.
local function foreign_epoch(text, now)
  local epoch = parse_epoch(text)
  if not epoch or epoch > epoch_at(now + CLOCK_AHEAD_MS) then return nil end
  return epoch
end

-- The two numbers of a stream id. nil: malformed, or past `limit_ms`.
local function foreign_id(text, limit_ms)
  local ms, seq = string.match(text or '', '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if not ms or ms > limit_ms or seq > MAX_SEQ then return nil end
  return ms, seq
end

-- The three numbers of a position. nil: malformed, or not possible at this time.
local function foreign_position(text, now, ahead_ms)
  local id, epoch = string.match(text or '', '^([%d-]+)%.([0-9a-z]+)$')
  local ms, seq = foreign_id(id, now + (ahead_ms or MAX_AHEAD_MS))
  epoch = foreign_epoch(epoch, now)
  if not ms or not epoch then return nil end
  return ms, seq, epoch
end

local function following(ms, seq)
  if seq >= MAX_SEQ then return ms + 1, 0 end
  return ms, seq + 1
end

local function is_after(a_ms, a_seq, b_ms, b_seq)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function show_id(ms, seq)
  return string.format('%d-%d', ms, seq)
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function number(text, default)
  return tonumber(text or '') or default
end
