/** What `map` has for `key`, made by `make` and kept there if it had nothing. */
export function getOrMake<K, V>(map: MapLike<K, V>, key: K, make: () => V): V {
  const known = map.get(key)
  if (known !== undefined) return known
  const made = make()
  map.set(key, made)
  return made
}

interface MapLike<K, V> {
  get(key: K): V | undefined
  set(key: K, value: V): unknown
}
