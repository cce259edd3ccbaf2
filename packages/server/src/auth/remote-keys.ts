import type { CryptoKey, JWSHeaderParameters } from 'jose'
import { type Clock, SpillwayError, systemClock } from 'spillway'
import { type ServerLog, silentLog } from '../log.ts'
import { isLoopback } from '../loopback.ts'
import { KeySet, type KeySource } from './key-set.ts'
import { Listeners } from './listeners.ts'

export interface RemoteKeysOptions {
  /** Of a JSON Web Key Set: https, or http on this machine. Redirects are not followed. */
  readonly url: string
  /** Milliseconds after which keys are fetched anew. Default 300 000. */
  readonly refresh?: number
  /** Milliseconds between two fetches, at the least, whatever tokens ask for. Default 30 000. */
  readonly cooldown?: number
  /** Milliseconds for which keys are used while they cannot be fetched anew. Default 3 600 000. */
  readonly keep?: number
  /** Milliseconds that a fetch may take. Default 5000. */
  readonly timeout?: number
  /** Bytes that an answer may have. Default 262 144. */
  readonly maxBytes?: number
  /** Default: silent. */
  readonly log?: ServerLog
  readonly clock?: Clock
}

/**
 * The keys of a URL. Resolves after the first fetch, also if that failed: the server may start before the issuer does.
 * Throws `CONFIG` for a URL that is not safe.
 */
export async function openRemoteKeys({ url, ...options }: RemoteKeysOptions): Promise<KeySource> {
  const keys = new RemoteKeys(checkedUrl(url), options)
  await keys.start()
  return keys
}

type Settings = Omit<RemoteKeysOptions, 'url'>

/**
 * Fetches on a schedule, and between two dates only for a key ID that it does not know: then a key is new. Strangers make
 * up key IDs, so `cooldown` limits all fetches, and who comes with a known ID never waits for those of others.
 */
class RemoteKeys implements KeySource {
  readonly #url: URL
  readonly #settings: Required<Settings>
  readonly #listeners = new Listeners<void>()
  readonly #closing = new AbortController()
  #keys: KeySet | undefined
  #fetchedAt = Number.NEGATIVE_INFINITY
  #triedAt = Number.NEGATIVE_INFINITY
  #fetching: Promise<void> | undefined
  #cancelNext = () => {}

  constructor(
    url: URL,
    {
      refresh = 300_000,
      cooldown = 30_000,
      keep = 3_600_000,
      timeout = 5000,
      maxBytes = 262_144,
      log = silentLog,
      clock = systemClock,
    }: Settings,
  ) {
    this.#url = url
    this.#settings = { refresh, cooldown, keep, timeout, maxBytes, log, clock }
  }

  start(): Promise<void> {
    return this.#fetch()
  }

  async keyFor(header: JWSHeaderParameters): Promise<CryptoKey> {
    if (!this.#usable || (header.kid !== undefined && !this.#usable.has(header.kid))) await this.#fetchInTurn()
    if (this.#usable) return this.#usable.find(header)
    throw new SpillwayError(
      'UNREACHABLE',
      'Tokens cannot be checked at the moment: the keys of their issuer are missing.',
    )
  }

  onChange(listener: () => void): () => void {
    return this.#listeners.add(listener)
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#cancelNext()
    await this.#fetching
  }

  get #now(): number {
    return this.#settings.clock.monotonic()
  }

  get #usable(): KeySet | undefined {
    return this.#now - this.#fetchedAt < this.#settings.keep ? this.#keys : undefined
  }

  async #fetchInTurn(): Promise<void> {
    if (!this.#fetching && this.#now - this.#triedAt < this.#settings.cooldown) return
    await this.#fetch()
  }

  #fetch(): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.resolve()
    this.#fetching ??= this.#refresh().finally(() => {
      this.#fetching = undefined
    })
    return this.#fetching
  }

  async #refresh(): Promise<void> {
    const { refresh, cooldown, timeout, maxBytes, log } = this.#settings
    this.#triedAt = this.#now
    this.#cancelNext()
    const url = `${this.#url.origin}${this.#url.pathname}`
    let keys: KeySet
    try {
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(timeout)])
      keys = KeySet.parse(await fetchText(this.#url, maxBytes, signal))
    } catch (error) {
      if (this.#closing.signal.aborted) return
      const consequence = this.#usable ? 'Those of before are used' : 'No token can be checked'
      log.warn(`The keys of the issuer could not be fetched from ${url}. ${consequence}`, { url, error })
      this.#fetchAfter(Math.max(cooldown, 1000))
      return
    }
    const before = this.#keys
    this.#keys = keys
    this.#fetchedAt = this.#now
    this.#fetchAfter(refresh)
    if (!before || keys.covers(before)) return
    log.info('Keys of the issuer are gone: tokens signed with them are not valid any more', { url })
    this.#listeners.tell()
  }

  #fetchAfter(ms: number): void {
    this.#cancelNext = this.#settings.clock.after(ms, () => this.#fetch())
  }
}

function checkedUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isSafe =
    url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname.replace(/^\[|\]$/g, '')))
  if (!url || !isSafe) {
    throw new SpillwayError(
      'CONFIG',
      'The URL of keys must be https, or http on this machine: who can change the answer makes tokens.',
    )
  }
  if (url.username || url.password)
    throw new SpillwayError('CONFIG', 'The URL of keys must not hold a name or password.')
  return url
}

async function fetchText(url: URL, maxBytes: number, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, { redirect: 'manual', signal, headers: { accept: 'application/json' } })
  if (response.status !== 200) {
    await response.body?.cancel()
    const isElsewhere = response.status >= 300 && response.status < 400
    throw new Error(`The answer was ${response.status}${isElsewhere ? ', and redirects are not followed' : ''}.`)
  }
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of response.body ?? []) {
    bytes += part.length
    if (bytes > maxBytes) throw new Error(`The answer has more than ${maxBytes} bytes.`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}
