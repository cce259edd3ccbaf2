import type { FuzzTarget } from '../../src/testing/fuzz.ts'
import { names } from './names.ts'
import { bodies, body, history } from './publishing.ts'
import { cursor, query } from './query.ts'
import { rights } from './rights.ts'
import { events, frame, lines } from './streams.ts'

/** All parsers of the library. */
export const targets: readonly FuzzTarget[] = [
  query,
  cursor,
  events,
  lines,
  frame,
  body,
  bodies,
  history,
  names,
  rights,
]
