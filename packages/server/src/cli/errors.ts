/** Wrong usage: the message names what was wrong, and what was expected. Exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** What a command could not do, said so that it needs no stack trace. Exit code 1. */
export class Failure extends Error {
  override readonly name = 'Failure'
}

/** `value` as part of an error message: quoted, on one line, cut. */
export function quoted(value: string): string {
  const text = JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 76)}..."` : text
}

/** The candidate that `name` is probably a slip of, if one is close. */
export function nearest(name: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined
  let least = Math.max(2, Math.ceil(name.length / 3)) + 1
  for (const candidate of candidates) {
    const distance = candidate.startsWith(name) && name.length > 1 ? 1 : editDistance(name, candidate)
    if (distance >= least || distance >= candidate.length) continue
    best = candidate
    least = distance
  }
  return best
}

/** How many letters must be put in, taken out or changed to make `b` of `a`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const changed = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(changed, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
