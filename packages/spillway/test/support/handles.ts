/** What keeps this process busy: sockets, timers, callbacks that wait for their turn. */
export function handles(): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const name of process.getActiveResourcesInfo()) counts[name] = (counts[name] ?? 0) + 1
  return counts
}

/** What there is more of than `before`. Less is fine: at a look something may have been on its way. */
export function handlesMoreThan(before: Readonly<Record<string, number>>): string[] {
  const more = Object.entries(handles()).filter(([name, count]) => count > (before[name] ?? 0))
  return more.map(([name, count]) => `${name}: ${before[name] ?? 0}, now ${count}`)
}
