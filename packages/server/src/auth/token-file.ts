import { stat } from 'node:fs/promises'
import { type Clock, type Rights, systemClock } from 'spillway'
import { type ServerLog, silentLog } from '../log.ts'
import { type Authenticator, notValid } from './authenticator.ts'
import { Listeners } from './listeners.ts'
import { LiveFile } from './live-file.ts'
import { isSecretOf, parseHash, tokenParts } from './secret.ts'
import { parseTokenDocument, rightsIn, subjectOf, type TokenDocument } from './token-document.ts'

export interface TokenFileOptions {
  /** As `spillway token` writes it. */
  readonly file: string
  /** Default: silent. */
  readonly log?: ServerLog
  readonly clock?: Clock
  /** Milliseconds between looks at a file whose changes nobody tells. Default 1000. */
  readonly interval?: number
}

/**
 * The tokens of a file. Changes of the file come into force as they are made; a file that cannot be used, or is gone,
 * changes nothing (see {@link LiveFile}). Rejects with `CONFIG` if it cannot be used from the start.
 */
export async function openTokenFile({
  file,
  log = silentLog,
  clock = systemClock,
  interval,
}: TokenFileOptions): Promise<Authenticator> {
  const listeners = new Listeners<string | undefined>()
  const live = await LiveFile.open({
    file,
    parse: (text) => entriesOf(parseTokenDocument(text)),
    onChange: (entries, before) => {
      const subjects = changedSubjects(entries, before)
      if (subjects.length > 0) log.info(`Tokens of ${file} were changed or revoked`, { file, count: subjects.length })
      for (const subject of subjects) listeners.tell(subject)
    },
    log,
    interval,
  })
  await warnOfOthers(file, log)

  return {
    rightsOf(token) {
      const { id = '', secret = '' } = tokenParts(token) ?? {}
      const entry = live.value.get(id)
      if (!isSecretOf(entry?.digest, secret)) throw notValid(whyNot(id, entry))
      const { rights } = entry as Entry
      if (rights.expiresAt !== undefined && rights.expiresAt <= clock.now()) throw notValid(`Token ${id} has expired.`)
      return rights
    },
    onChange: (listener) => listeners.add(listener),
    close: () => live.close(),
  }
}

interface Entry {
  readonly digest: Buffer | undefined
  readonly rights: Rights
  /** Equal for entries that are proved by the same secret and give the same rights. */
  readonly meaning: string
}

type Entries = ReadonlyMap<string, Entry>

function entriesOf(document: TokenDocument): Entries {
  return new Map(
    document.tokens.map((token) => {
      const rights = rightsIn(document, token)
      return [token.id, { digest: parseHash(token.hash), rights, meaning: JSON.stringify([token.hash, rights]) }]
    }),
  )
}

/** Whose token was changed or removed. Nobody can have used one that is new. */
function changedSubjects(entries: Entries, before: Entries): string[] {
  return [...before].filter(([id, { meaning }]) => entries.get(id)?.meaning !== meaning).map(([id]) => subjectOf(id))
}

function whyNot(id: string, entry: Entry | undefined): string {
  if (id === '') return 'It is not written like a token.'
  return entry ? `It has not the secret of token ${id}.` : `There is no token ${id}.`
}

async function warnOfOthers(file: string, log: ServerLog): Promise<void> {
  const found = await stat(file).catch(() => undefined)
  const mode = (found?.mode ?? 0) & 0o777
  // Windows keeps no such modes and shows all as open to others.
  if ((mode & 0o077) === 0 || process.platform === 'win32') return
  const text = mode.toString(8).padStart(4, '0')
  log.warn(`${file} is open to other users of this machine (mode ${text}). \`chmod 600\` closes it`, {
    file,
    mode: text,
  })
}
