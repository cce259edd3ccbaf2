import { memoryLog } from '../../src/core/memory-log.ts'
import { logSuite } from '../../src/testing/index.ts'

logSuite('memory log', async (limits) => memoryLog(limits))
