import type { FuzzTarget } from 'spillway/testing'
import { filters } from './filters.ts'
import { byteLines, exactJson, host } from './texts.ts'
import { terminal, values } from './values.ts'

/** All parsers of the server and its command line. */
export const targets: readonly FuzzTarget[] = [filters, values, terminal, exactJson, byteLines, host]
