
-- Options of a publish ----------------------------------------------------------------------------
local options, option_fault, write_options, duration_ms
local PUBLISH_OPTIONS, NO_OPTIONS

do
  local MAX_RETRY_MS = 86400000
  local MAX_KEY_BYTES = 256
  local MAX_TAGS = 8
  local MAX_TAG_NAME_BYTES, MAX_TAG_BYTES = 64, 256
  local MIN_UNSEEN_MS, MAX_UNSEEN_MS = 1000, 604800000

  PUBLISH_OPTIONS =
    '[KEY <key>] [RETRY <ms>] [KEEP <key> | FORGET <key>] [EPHEMERAL] [TAGS <name>=<value> ..]'
    .. ' [UNSEEN <duration>] [TRACE <traceparent>]'
  local OPTIONS_WITH_VALUE = {
    KEY = 'key', RETRY = 'retry', KEEP = 'keep', FORGET = 'forget', UNSEEN = 'unseen',
    TRACE = 'trace',
  }
  -- A pattern of so many hexadecimal digits; while a library is loaded, there is no string.rep.
  local HEX_2 = '[0-9a-f][0-9a-f]'
  local HEX_8 = HEX_2 .. HEX_2 .. HEX_2 .. HEX_2
  local HEX_16 = HEX_8 .. HEX_8
  local TRACEPARENT =
    '^(' .. HEX_2 .. ')%-(' .. HEX_16 .. HEX_16 .. '%-' .. HEX_16 .. ')%-(' .. HEX_2 .. ')(.*)$'
  local MAX_TRACEPARENT_BYTES = 256

  -- What an event has in addition to type and payload, ready to be written: letters and lines of
  -- the live message (ARCHITECTURE.md#live-messages), fields of the log entry.
  function write_options(o)
    o.flags, o.lines, o.fields = '', '', {}
    local function add(letter, text)
      o.flags, o.lines = o.flags .. letter, o.lines .. text .. '\n'
      o.fields[#o.fields + 1], o.fields[#o.fields + 2] = letter, text
    end
    if o.keep then add('k', o.keep) elseif o.forget then add('f', o.forget) end
    if o.tags then add('g', o.tags) end
    if o.unseen_ms then add('u', string.format('%d', o.unseen_ms)) end
    -- The live message cannot have it: gateways of earlier versions reject unknown letters.
    if o.trace then o.fields[#o.fields + 1], o.fields[#o.fields + 2] = 'c', o.trace end
    return o
  end

  NO_OPTIONS = write_options({})

  local function is_option(text)
    local name = string.upper(text)
    return OPTIONS_WITH_VALUE[name] or name == 'EPHEMERAL' or name == 'TAGS'
  end

  -- The options from the argument `from` on; nil and a text if they make no sense.
  function options(args, from)
    if not args[from] then return NO_OPTIONS end
    local o = {}
    local i = from
    while args[i] do
      local name = string.upper(args[i])
      local member = OPTIONS_WITH_VALUE[name]
      if member then
        if not args[i + 1] then return nil, 'an option without a value' end
        o[member] = args[i + 1]
        i = i + 2
      elseif name == 'EPHEMERAL' then
        o.is_ephemeral = true
        i = i + 1
      elseif name == 'TAGS' then
        o.tag_list = o.tag_list or {}
        i = i + 1
        while args[i] and not is_option(args[i]) do
          o.tag_list[#o.tag_list + 1] = args[i]
          i = i + 1
        end
      else
        return nil, 'unknown option ' .. string.sub(args[i], 1, 32)
      end
    end
    if o.tag_list then o.tags = table.concat(o.tag_list, ' ') end
    return o
  end

  local function is_kept_key(text)
    return #text >= 1 and #text <= MAX_KEY_BYTES and not string.find(text, '%c') and is_utf8(text)
      and not string.find(text, '\194[\128-\159]')
  end

  local function are_tags(list)
    if #list == 0 or #list > MAX_TAGS then return false end
    local seen = {}
    for _, tag in ipairs(list) do
      local name, value = string.match(tag, '^([%w_.-]+)=([^%s%c]+)$')
      if not name or #name > MAX_TAG_NAME_BYTES or #value > MAX_TAG_BYTES or seen[name]
        or not is_utf8(value) then
        return false
      end
      seen[name] = true
    end
    return true
  end

  -- Removes a trace that is not recorded, or has the id zero, which OpenTelemetry writes if it is
  -- not set up. Returns whether the text is well-formed. The same rules as in
  -- core/trace_context.rs.
  local function parse_trace(o)
    local version, ids, flags, rest = string.match(o.trace, TRACEPARENT)
    if not version or version == 'ff' or #o.trace > MAX_TRACEPARENT_BYTES
      or (rest ~= '' and (version == '00' or string.sub(rest, 1, 1) ~= '-')) then
      return false
    end
    local is_sampled = tonumber(flags, 16) % 2 == 1
    local has_ids = not string.find(ids, '^0+%-') and not string.find(ids, '%-0+$')
    o.trace = is_sampled and has_ids and '00-' .. ids .. '-01' or nil
    return true
  end

  local MS_OF_UNIT = { ms = 1, s = 1000, m = 60000, h = 3600000, d = 86400000 }

  function duration_ms(text)
    local digits, unit = string.match(text, '^(%d+)(%l+)$')
    if not digits or #digits > 12 or not MS_OF_UNIT[unit] then return nil end
    return tonumber(digits) * MS_OF_UNIT[unit]
  end

  -- Why given options are rejected: code and text.
  local function given_fault(channel, o, key)
    if o.key and (#o.key < 1 or #o.key > MAX_KEY_BYTES) then
      return 'bad-key', 'the key must have 1 to 256 bytes'
    elseif o.retry and (not string.find(o.retry, '^%d+$') or tonumber(o.retry) > MAX_RETRY_MS) then
      return 'bad-retry', 'RETRY must be an integer from 0 to 86400000 (ms)'
    elseif (o.keep and o.forget) or (key and not is_kept_key(key)) then
      return 'bad-keep', 'KEEP or FORGET takes one key of 1 to 256 bytes without control characters'
    elseif o.tag_list and not are_tags(o.tag_list) then
      return 'bad-tags', 'TAGS takes 1 to 8 different <name>=<value>: names of up to 64 letters,'
        .. ' digits and _ . -, values of up to 256 bytes without spaces and control characters'
    elseif o.trace and not parse_trace(o) then
      return 'bad-traceparent', 'TRACE takes the traceparent of W3C trace context:'
        .. ' 00-<32 hexadecimal digits>-<16>-<2>, in lower case'
    elseif o.unseen then
      local ms = duration_ms(o.unseen)
      if not ms or ms < MIN_UNSEEN_MS or ms > MAX_UNSEEN_MS or channel.topic then
        return 'bad-unseen', 'UNSEEN takes a duration from 1s to 7d, and only for user:<id>:events'
      end
    end
  end

  -- Why options are rejected: code and text. The same rules as in core/event_options.rs.
  function option_fault(channel, o)
    local key
    -- Most events have none.
    if o ~= NO_OPTIONS then
      key = o.keep or o.forget
      local code, text = given_fault(channel, o, key)
      if code then return code, text end
    end
    if (o.is_ephemeral or channel.is_ephemeral) and (key or o.unseen or o.key) then
      return 'bad-ephemeral',
        'an ephemeral event is not stored: it takes no KEY, KEEP, FORGET and UNSEEN'
    elseif channel.requires_keep and not key then
      return 'needs-keep', 'the rule of this channel (keep = "required") accepts only events with'
        .. ' KEEP <key> or FORGET <key>'
    end
  end
end
