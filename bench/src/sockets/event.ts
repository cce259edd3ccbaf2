/** Bytes of an event's JSON. What a contender puts around it is its own. */
export const eventBytes = 200

/** `~~` 10 digits `.` 16 digits `~`: a sequence number and the microsecond of publishing. */
export const markerLength = 30

// One clock for all processes of this machine, which C reads as CLOCK_MONOTONIC.
const offset = Number(process.hrtime.bigint() / 1000n) - performance.now() * 1000

export function microseconds(): number {
  return Math.round(performance.now() * 1000 + offset)
}

const before = '{"m":"'
const middle = '","pad":"'
const padding = 'x'.repeat(eventBytes - before.length - markerLength - middle.length - 2)

/** The JSON of event number `seq`, published now. */
export function eventText(seq: number): string {
  const marker = `~~${String(seq).padStart(10, '0')}.${String(microseconds()).padStart(16, '0')}~`
  return `${before}${marker}${middle}${padding}"}`
}

/** The same as a Server-Sent Event, as everybody who writes them by hand would. */
export function sseText(seq: number, text: string): string {
  return `id: ${seq}\ndata: ${text}\n\n`
}
