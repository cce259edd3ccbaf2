import { fuzzSuite } from '../../src/testing/fuzz-suite.ts'
import { targets } from './targets.ts'

fuzzSuite(targets)
