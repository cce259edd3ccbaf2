import { StoredBatch } from '../../core/event.ts'
import type { HistoryBatch } from '../../core/log.ts'
import type { FilePart } from '../sqlite.ts'
import { batchOf } from './batch.ts'
import type { Engine } from './engine.ts'
import { type Extent, Pages } from './pages.ts'
import type { StreamRecord } from './record.ts'

/** A page of an export, in batches. */
const pageLength = 1000

/** A batch that knows when it was stored. */
class DatedBatch extends StoredBatch implements HistoryBatch {
  readonly time: number

  constructor(epoch: string, record: StreamRecord) {
    const { index, ...parts } = batchOf(epoch, record)
    super(epoch, index, parts)
    this.time = record.head.time
  }
}

/** Everything after `floor` and up to the end of `extent`. */
export async function* partsOf(engine: Engine, floor: number, extent: Extent): AsyncGenerator<FilePart> {
  const pages = new Pages(engine, extent, (epoch, record) => new DatedBatch(epoch, record))
  try {
    for (let after = floor; after < extent.end; ) {
      const page = await pages.read(after, pageLength)
      const { lost = 0, batches } = page
      if (lost > after && lost > page.floor) yield { lost: { after, before: lost + 1 } }
      else if (page.floor > after) yield { removed: { after, before: page.floor + 1 } }
      else if (batches.length === 0) return
      if (batches.length > 0) yield { batches: batches as readonly DatedBatch[] }
      after = batches.at(-1)?.index ?? Math.max(lost, page.floor)
    }
  } finally {
    pages.close()
  }
}
