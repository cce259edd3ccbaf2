import { type ServerLog, silentLog } from '../log.ts'
import { KeySet, type KeySource } from './key-set.ts'
import { Listeners } from './listeners.ts'
import { LiveFile } from './live-file.ts'

export interface KeyFileOptions {
  /** A JSON Web Key Set. */
  readonly file: string
  /** Default: silent. */
  readonly log?: ServerLog
  /** Milliseconds between looks at a file whose changes nobody tells. Default 1000. */
  readonly interval?: number
}

/** The keys of a file, as they change (see {@link LiveFile}). Rejects with `CONFIG` if it cannot be used from the start. */
export async function openKeyFile({ file, log = silentLog, interval }: KeyFileOptions): Promise<KeySource> {
  const listeners = new Listeners<void>()
  const live = await LiveFile.open({
    file,
    parse: KeySet.parse,
    onChange: (keys, before) => {
      if (keys.covers(before)) return
      log.info(`Keys of ${file} are gone: tokens signed with them are not valid any more`, { file })
      listeners.tell()
    },
    log,
    interval,
  })
  return {
    keyFor: (header) => live.value.find(header),
    onChange: (listener) => listeners.add(listener),
    close: () => live.close(),
  }
}
