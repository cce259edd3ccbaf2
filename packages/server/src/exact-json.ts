// JSON.parse tells the source of a number, and JSON.rawJSON prints it; TypeScript's ES2023 library does not know yet.
interface ExactJson {
  parse(text: string, reviver: (key: string, value: unknown, context: { source?: string }) => unknown): unknown
  rawJSON(text: string): unknown
}
const json = JSON as unknown as ExactJson

/** Parses JSON such that `JSON.stringify` gives each number as it was written, also those beyond 2^53. */
export function parseExact(text: string): unknown {
  return json.parse(text, (_key, value, { source }) =>
    typeof value === 'number' && source !== undefined && source !== String(value) ? json.rawJSON(source) : value,
  )
}
