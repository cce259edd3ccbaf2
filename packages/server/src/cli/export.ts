import { once } from 'node:events'
import { formatHistoryLine } from 'spillway'
import type { SqliteFile } from 'spillway/log/sqlite'
import { counted } from '../terminal.ts'
import { type Command, defineCommand } from './command.ts'
import { lossText, shareUpTo, span, withDataFile } from './data-file.ts'
import { Progress } from './progress.ts'

/** `spillway export`. */
export const exportLog: Command = defineCommand({
  name: 'export',
  summary: 'Write the history of a directory to standard output, also while it is served.',
  usage: ['spillway export <dir> > <file>'],
  options: {},
  operand: '<dir>',
  notes: [
    'Each line is a batch: {"index","time","events":[...]}, the time in Unix milliseconds, payloads as they were published. It ends with what was newest when it began.',
    'What is damaged is left out, its indexes are named on standard error, and the exit code is 1.',
  ],
  examples: ['spillway export ./spillway-data > history.ndjson', 'spillway export ./spillway-data | gzip > history.gz'],
  run: (_values, folder) => withDataFile(folder, write),
})

async function write(file: SqliteFile): Promise<number> {
  const progress = new Progress()
  const say = (text: string) => {
    progress.clear()
    process.stderr.write(`spillway export: ${text}\n`)
  }
  let batches = 0
  let isWhole = true
  if (file.epoch === undefined) {
    say('The record of what was removed is damaged, so nobody can say whether the first batches are missing.')
    isWhole = false
  }
  for (const part of file.parts()) {
    if ('lost' in part) {
      isWhole = false
      say(lossText(part.lost))
      continue
    }
    if ('removed' in part) {
      say(`Removed by the server's limits meanwhile: ${span(part.removed)}.`)
      continue
    }
    batches += part.batches.length
    const text = part.batches.map((batch) => `${formatHistoryLine(batch)}\n`).join('')
    if (!process.stdout.write(text)) await once(process.stdout, 'drain')
    const newest = part.batches.at(-1)?.index ?? 0
    progress.show(`${counted(batches, 'batch', 'batches')} written`, shareUpTo(newest, file))
  }
  progress.clear()
  say(`${counted(batches, 'batch', 'batches')} written${isWhole ? '' : ', not all that was stored'}.`)
  return isWhole ? 0 : 1
}
