import { closeSync, fdatasyncSync, openSync, readSync, writeSync } from 'node:fs'
import { StringDecoder } from 'node:string_decoder'
import type { DiskStore } from '../contender.ts'

/** A line per event, a write and an fdatasync per group. */
export function openFile(path: string): DiskStore {
  const file = openSync(path, 'a+')
  return {
    append(texts) {
      writeSync(file, `${texts.join('\n')}\n`)
      fdatasyncSync(file)
    },
    async replay(take) {
      const chunk = Buffer.alloc(2 ** 20)
      const decoder = new StringDecoder()
      let rest = ''
      let position = 0
      for (;;) {
        const size = readSync(file, chunk, 0, chunk.length, position)
        if (size === 0) return
        position += size
        const lines = (rest + decoder.write(chunk.subarray(0, size))).split('\n')
        rest = lines.pop() as string
        for (const payload of lines) take({ payload })
      }
    },
    close: () => closeSync(file),
  }
}
