-- history.lua: the newest messages of one room and lane, read in one step.
--
-- KEYS  1 <prefix>:seq:{<room>}   2 <prefix>:history:{<room>}:<lane>
-- ARGV  1 lane: high, normal or low   2 epoch and   3 number of the last message that the node passed on
--       ("" and 0: whatever there is)   4 messages and   5 bytes at most: of more the newest are returned
--
-- Returns {epoch, n, first, message, ...}: n is the lane's last number, first that of the first message returned; later
-- than the node's, where the epoch is the same. Epoch "": nothing is known of the room.
-- Where the node has seen more than the lane counts, Redis lost what it had (a failover, a log that was cut): its
-- numbers would be given a second time, so another epoch begins.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
    return {'', '0', '0'}
end
local n = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local from = 1
if epoch == ARGV[2] then
    from = tonumber(ARGV[3]) + 1
    if n < from - 1 then
        local now = redis.call('TIME')
        local number = tonumber(now[1]) * 1000000 + tonumber(now[2])
        epoch = ''
        while number > 0 do
            local digit = number % 36
            epoch = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. epoch
            number = (number - digit) / 36
        end
        redis.call('HDEL', KEYS[1], 'high', 'normal', 'low')
        redis.call('HSET', KEYS[1], 'epoch', epoch)
        return {epoch, '0', '0'}
    end
end
local answer = {epoch, string.format('%.0f', n), '0'}
if n < from then
    return answer
end
local kept = redis.call('XREVRANGE', KEYS[2], '+', string.format('%.0f-0', from), 'COUNT', ARGV[4])
local bytes, count = 0, 0
for _, entry in ipairs(kept) do
    bytes = bytes + #entry[2][4]
    if bytes > tonumber(ARGV[5]) then
        break
    end
    count = count + 1
end
for i = count, 1, -1 do
    answer[#answer + 1] = kept[i][2][4]
end
if count > 0 then
    answer[3] = string.match(kept[count][1], '^%d+')
end
return answer
