-- presence.lua: keeps one node's counts of many rooms, and returns what the other nodes have there.
--
-- KEYS  n hashes <prefix>:online:{<room>}: member of <prefix>:nodes -> viewers in the room
-- ARGV  1 this node's member  2 expiry of the hashes (ms)  3 "1": renew it where nothing changes too
--       4 number of dead members, then these, then this node's n counts
--
-- Returns n integers: the sum s over all other nodes that are not dead, or -1 - s where this node's count was another one before. Who
-- is not known to be dead counts: a node that began a moment ago must not be overlooked. Written is only what differs, so that a
-- hash that was lost comes back by itself.
local me, dead_count = ARGV[1], tonumber(ARGV[4])
local dead = {}
for i = 1, dead_count do
    dead[ARGV[4 + i]] = true
end
local sums = {}
for i, key in ipairs(KEYS) do
    local count, mine, others = ARGV[4 + dead_count + i], '0', 0
    local fields = redis.call('HGETALL', key)
    for f = 1, #fields, 2 do
        local member = fields[f]
        if member == me then
            mine = fields[f + 1]
        elseif dead[member] then
            redis.call('HDEL', key, member)
        else
            others = others + fields[f + 1]
        end
    end
    if count ~= mine and count == '0' then
        redis.call('HDEL', key, me)
    elseif count ~= mine then
        redis.call('HSET', key, me, count)
        redis.call('PEXPIRE', key, ARGV[2])
    elseif count ~= '0' and ARGV[3] == '1' then
        redis.call('PEXPIRE', key, ARGV[2])
    end
    sums[i] = count == mine and others or -1 - others
end
return sums
