/** Microseconds on a clock that all threads share. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1000
}
