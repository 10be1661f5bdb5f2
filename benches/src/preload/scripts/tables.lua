-- Trees, tables and strings that come and go. The argument says how many.
local count = tonumber(arg[1])
local state = 12345
local function random(n)
  state = (state * 1103515245 + 12345) % 2147483648
  return state % n
end

local function insert(tree, key)
  if not tree then return { key = key, name = "node " .. key } end
  if key < tree.key then tree.left = insert(tree.left, key) else tree.right = insert(tree.right, key) end
  return tree
end
local function depth(tree)
  return tree and 1 + math.max(depth(tree.left), depth(tree.right)) or 0
end

local deepest = 0
for _ = 1, 4 do
  local tree
  for _ = 1, count // 8 do tree = insert(tree, random(1 << 30)) end
  deepest = math.max(deepest, depth(tree))
end

local live = {}
for n = 1, count do live[n] = { n, tostring(n) } end
for n = 1, count * 2 do
  local place = 1 + random(count)
  live[place] = { n, "value " .. n .. " at " .. place, { place } }
end
local sum, parts = 0, {}
for n, item in ipairs(live) do
  sum = sum + item[1]
  parts[#parts + 1] = item[2]
end
table.sort(parts)
print(deepest, sum, #table.concat(parts, ","))
