-- nodes.lua: a node's sign of life, and which nodes are dead.
--
-- KEYS  1 <prefix>:nodes   sorted set: "<node> <boot id>", scored with the time (ms of Redis' clock) until which it counts as alive
-- ARGV  1 this node's member  2 its name and a space  3 how long it is alive from now (ms; 0: it leaves)
--       4 how long dead ones are remembered (ms)
--
-- Returns {1 when the node was alive all the time, else 0 (others may have forgotten its counts), then the dead members}.
-- Earlier boots of the same node are dead at once.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local answer = { (before and tonumber(before) > now) and 1 or 0 }
local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #all, 2 do
    local member, until_ms = all[i], tonumber(all[i + 1])
    if member ~= ARGV[1] and until_ms > now and string.sub(member, 1, #ARGV[2]) == ARGV[2] then
        redis.call('ZADD', KEYS[1], now, member)
        until_ms = now
    end
    if until_ms <= now - ARGV[4] then
        redis.call('ZREM', KEYS[1], member)
    elseif until_ms <= now and member ~= ARGV[1] then
        answer[#answer + 1] = member
    end
end
return answer
