
-- Texts -------------------------------------------------------------------------------------------

-- RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
local function is_utf8(s)
  local at = string.find(s, '[\128-\255]')
  while at do
    local b = string.byte(s, at)
    local to
    if b >= 0xC2 and b <= 0xDF then
      to = string.find(s, '^[\128-\191]', at + 1) and at + 1
    elseif b >= 0xE0 and b <= 0xEF then
      local second = (b == 0xE0 and '^[\160-\191][\128-\191]')
        or (b == 0xED and '^[\128-\159][\128-\191]')
        or '^[\128-\191][\128-\191]'
      to = string.find(s, second, at + 1) and at + 2
    elseif b >= 0xF0 and b <= 0xF4 then
      local second = (b == 0xF0 and '^[\144-\191][\128-\191][\128-\191]')
        or (b == 0xF4 and '^[\128-\143][\128-\191][\128-\191]')
        or '^[\128-\191][\128-\191][\128-\191]'
      to = string.find(s, second, at + 1) and at + 3
    end
    if not to then return false end
    at = string.find(s, '[\128-\255]', to + 1)
  end
  return true
end

-- Types that were found valid.
local MAX_TYPES = 1024
local valid_types, types = {}, 0

local function is_type(text)
  if valid_types[text] then return true end
  if #text < 1 or #text > 128 or string.find(text, '%c') or not is_utf8(text)
    or string.find(text, '\194[\128-\159]') then
    return false
  end
  if types >= MAX_TYPES then valid_types, types = {}, 0 end
  valid_types[text], types = true, types + 1
  return true
end
