export { eventBytes, eventText, eventTexts } from '../disk/event.ts'

const start = '{"n":'.length
const end = start + '1000000000'.length

/** The number of an event, from its text or from what that says. */
export function numberOf(event: unknown): number {
  const number = typeof event === 'string' ? event.slice(start, end) : (event as { readonly n: number }).n
  return Number(number) - 1e9
}
