/** Bytes of an event's JSON. */
export const eventBytes = 256

const padding = 'x'.repeat(eventBytes - '{"n":0000000000,"pad":""}'.length)

/** The JSON of event number `n`. */
export function eventText(n: number): string {
  return `{"n":${n + 1e9},"pad":"${padding}"}`
}

export function eventTexts(first: number, count: number): string[] {
  return Array.from({ length: count }, (_, at) => eventText(first + at))
}
