-- publish.lua: numbers a message of a type with history, keeps it and publishes it, in one step; once per key.
--
-- KEYS  1 <prefix>:seq:{<room>}
--       2 <prefix>:history:{<room>}:<lane>   (of the type: high, normal or low)
--       3 <prefix>:dedupe:{<room>}:<key>     (left out: the message has no key)
-- ARGV  1 lane: high, normal or low
--       2 channel: <prefix>:room:{<room>}, for the high lane <prefix>:high:{<room>}
--       3 message: {"type":...,"data":...,"from":...}, without id
--       4 messages kept at most   5 how long they are kept (ms)   6 how long a key is remembered (ms)
--
-- Returns {"added", id}, {"repeat", id of the first} or {"other"} (the key came with another message).
-- The id is "<first letter of the lane>.<epoch>.<n>", n counting from 1 without holes per room and lane. The first
-- message of a room makes its epoch: the time, in base 36. It outlives the messages by a day, so that a room that was
-- silent goes on counting. The stream's entries have the id <n>-0 and the fields time (ms) and message (as published,
-- with its id). The key's value is "<id> <digest of the message>".
local DAY = 86400000
local message, length, ttl = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local seq, history, dedupe = KEYS[1], KEYS[2], KEYS[3]
local letter = ({high = 'h', normal = 'n', low = 'l'})[ARGV[1]]
if not letter then
    return redis.error_reply('ERR the lane must be high, normal or low')
end
local rest = string.match(message, '^%s*{%s*(".*)$')
if not rest then
    return redis.error_reply('ERR the message must be a JSON object with a type')
end

local digest
if dedupe then
    digest = redis.sha1hex(ARGV[1] .. ' ' .. message)
    local held = redis.call('GET', dedupe)
    if held then
        local id, content = string.match(held, '^(%S+) (%S+)$')
        if content == digest then
            return {'repeat', id}
        end
        return {'other'}
    end
end

local now = redis.call('TIME')
local epoch = redis.call('HGET', seq, 'epoch')
if not epoch then
    local number = tonumber(now[1]) * 1000000 + tonumber(now[2])
    epoch = ''
    while number > 0 do
        local digit = number % 36
        epoch = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. epoch
        number = (number - digit) / 36
    end
    redis.call('HSET', seq, 'epoch', epoch)
end
local n = redis.call('HINCRBY', seq, ARGV[1], 1)
if n == 1 then
    redis.call('DEL', history)
end
local id = letter .. '.' .. epoch .. '.' .. string.format('%.0f', n)
message = '{"id":"' .. id .. '",' .. rest
local ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
redis.call('XADD', history, 'MAXLEN', length, string.format('%.0f-0', n), 'time', string.format('%.0f', ms),
    'message', message)
for _, entry in ipairs(redis.call('XRANGE', history, '-', '+', 'COUNT', 2)) do
    if tonumber(entry[2][2]) < ms - ttl then
        redis.call('XDEL', history, entry[1])
    end
end
redis.call('PEXPIRE', history, ARGV[5])
redis.call('PEXPIRE', seq, string.format('%.0f', ttl + DAY))
redis.call('PUBLISH', ARGV[2], message)
if dedupe then
    redis.call('SET', dedupe, id .. ' ' .. digest, 'PX', ARGV[6])
end
return {'added', id}
