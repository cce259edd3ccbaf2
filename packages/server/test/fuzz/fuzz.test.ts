import { fuzzSuite } from 'spillway/testing'
import { targets } from './targets.ts'

fuzzSuite(targets)
