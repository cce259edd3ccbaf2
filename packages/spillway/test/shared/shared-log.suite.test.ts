import { MessageChannel } from 'node:worker_threads'
import { memoryLog } from '../../src/core/memory-log.ts'
import { openSharedLog, shareLog } from '../../src/shared/index.ts'
import { logSuite } from '../../src/testing/index.ts'

// Everything but the second thread: the suite's clock stands in this one.
logSuite('shared log, as others see it', async (limits, t) => {
  const owner = shareLog(memoryLog(limits))
  const { port1, port2 } = new MessageChannel()
  t.after(() => owner.close())
  return openSharedLog(owner.connect(port1), port2)
})

logSuite('shared log, as its owner sees it', async (limits) => shareLog(memoryLog(limits)))
