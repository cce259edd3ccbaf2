import { type EventInput, JsonText } from '../../src/core/event.ts'

const evil = '\n\ndata: evil\n\n'
/** What could end a frame, a line or a field in some parser. */
export const breaks = [
  '\n',
  '\r',
  '\r\n',
  '\0',
  '\u2028',
  '\u2029',
  '\u0085',
  '\u000b',
  '\u000c',
  '\ufeff',
  evil,
  '\r\rdata: evil\r\r',
  '\nid: evil\n',
  'id: evil',
  'data: evil',
  ': comment',
  'event: closed',
  'retry: 0',
  '}\n{',
  '}\n{"closed":{}}\n',
  '{"index":9}',
  ']}]}',
  '",\n"',
  '\\',
  '\\n',
  '\\u000a',
  '"',
  "'",
  '\u001b[2J',
  '</script>',
  '\ud83d\ude00',
]
/** Those that names may hold. */
const allowedInNames = breaks.filter((text) => !/\p{Cc}/u.test(text))

/** `value` as JSON with `space()` between all tokens. */
export function spaced(value: unknown, space: () => string): string {
  const inner = (value: unknown): string => {
    if (Array.isArray(value)) return `[${space()}${value.map(inner).join(`${space()},${space()}`)}${space()}]`
    if (typeof value === 'object' && value !== null) {
      const members = Object.entries(value).map(
        ([key, member]) => `${JSON.stringify(key)}${space()}:${space()}${inner(member)}`,
      )
      return `{${space()}${members.join(`${space()},${space()}`)}${space()}}`
    }
    return JSON.stringify(value)
  }
  return space() + inner(value) + space()
}

export interface Injection {
  readonly event: EventInput
  /** What readers must find as the payload. */
  readonly payload: unknown
}

/** Events that hold the breaks wherever they are allowed. */
export const injections: readonly Injection[] = [
  ...breaks.flatMap((text) => {
    const payloads = [text, `a${text}b`, { [text]: text }, [[text], { a: { [`x${text}`]: text } }]]
    return payloads.map((payload) => ({ event: { topic: 'T', type: 't', payload }, payload }))
  }),
  ...allowedInNames
    .filter((text) => !text.includes(':'))
    .map((text) => ({ event: { topic: `T${text}`, type: text }, payload: null })),
  ...allowedInNames.flatMap((text) => [
    { event: { topic: 'T', type: text, key: text, namespace: text, filterKeys: [text, `${text}x`] }, payload: null },
  ]),
  ...['\n', '\r', '\r\n', '\n\n', '\r\r', ' \n\n\t'].map((space) => {
    const payload = { data: ['evil', { id: 1 }], 'event: closed': null }
    return { event: { topic: 'T', type: 't', payload: new JsonText(spaced(payload, () => space)) }, payload }
  }),
]
