-- merge.lua: adds a batch of a merged type to the room's running total and publishes both, once per batch.
--
-- KEYS  1 <prefix>:total:{<room>}   a hash: field <type>, value the running total
--       2 <prefix>:dedupe:{<room>}:merge:<type>:<sender>   (left out: the batch is never sent twice)
-- ARGV  1 channel: <prefix>:room:{<room>}, or <prefix>:high:{<room>} where the type's lane is high
--       2 type   3 delta   4 how long totals are kept (ms)
--       5 batch, another one than the sender's last   6 how long it is remembered (ms)   (with the second key only)
--
-- Returns the total as text: Lua's numbers would round it past 2^53.
if KEYS[2] and redis.call('GET', KEYS[2]) == ARGV[5] then
    return redis.call('HGET', KEYS[1], ARGV[2])
end
redis.call('HINCRBY', KEYS[1], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if KEYS[2] then
    redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[6])
end
local total = redis.call('HGET', KEYS[1], ARGV[2])
if tonumber(total) > 9007199254740991 then -- what JSON readers take exactly; there it stays
    total = '9007199254740991'
    redis.call('HSET', KEYS[1], ARGV[2], total)
end
redis.call('PUBLISH', ARGV[1],
    '{"type":"' .. ARGV[2] .. '","data":{"delta":' .. ARGV[3] .. ',"total":' .. total .. '}}')
return total
