import { setTimeout as delay } from 'node:timers/promises'
import { LineSplitter, LineTooLong } from './lines.ts'
import { networkReason, Refused, type Remote, request, Unreachable } from './remote.ts'

export interface FollowOptions {
  readonly remote: Remote
  /** `topic` or `topic:key`. None: everything. */
  readonly topics: readonly string[]
  readonly namespaces: readonly string[]
  /** An expression that events must fulfil. */
  readonly filter?: string
  /** `latest`, `earliest`, a cursor or a time of RFC 3339. */
  readonly from: string
  /** Start with the newest so many batches, in place of `from`. */
  readonly last?: number
  readonly signal?: AbortSignal
  /** Told when the connection is lost, and when it stands again. */
  readonly onNotice?: (notice: string) => void
  /** From 0 to 1. Default: `Math.random`. */
  readonly random?: () => number
  /** Milliseconds after which silence means that the connection is lost. */
  readonly firstLineWithin?: number
  readonly nextLineWithin?: number
}

/** A message for the reader of the stream: a batch, or a loss. */
export interface StreamMessage {
  /** As it came. */
  readonly line: string
  readonly value: BatchMessage | LossMessage
}

export interface BatchMessage {
  readonly index: number
  readonly cursor: string
  readonly events: readonly unknown[]
}

/** `gap`: batches between were dropped. `reset`: the cursor belonged to another history. */
export type LossMessage = { readonly gap: Loss } | { readonly reset: Loss }

export interface Loss {
  readonly after: number
  readonly before: number
  readonly reason: string
  readonly cursor: string
}

/** The stream ended, and coming back would not help. */
export class StreamEnded extends Error {
  override readonly name = 'StreamEnded'
}

/** A connection that failed: where it stood, and how long to wait before the next. */
class Lost extends Error {
  override readonly name = 'Lost'
  /** Milliseconds the server asked for; `clean` if it ended the stream without a word. Absent: back off. */
  readonly wait: number | 'clean' | undefined

  constructor(message: string, wait?: number | 'clean') {
    super(message)
    this.wait = wait
  }
}

/** A line has at most this many bytes: more than any batch that a server takes by default, and still bounded. */
const maxLine = 256 * 2 ** 20
const firstWait = 250
const longestWait = 10_000
/** A connection that brings nothing and ends sooner than this was no use, and asking again at once would be a flood. */
const usefulAfter = 1000

/**
 * Follows a stream and resumes it from the last cursor when the connection is lost, so that each batch arrives once.
 * Rejects with `Unreachable`, `Refused` or `StreamEnded` if the very first connection fails or if coming back does not
 * help, and with the signal's reason.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<StreamMessage> {
  const { signal, onNotice, random = Math.random } = options
  const place: Place = { cursor: undefined }
  let attempt = 0
  for (;;) {
    const began = performance.now()
    let opened = false
    let useful = false
    try {
      for await (const message of connection(options, place)) {
        if (!opened && attempt > 0) onNotice?.(`connected again, after ${place.cursor ?? options.from}`)
        opened = true
        if (message === 'open') continue
        useful = true
        yield message
      }
      throw new Lost('the stream ended', 'clean')
    } catch (error) {
      signal?.throwIfAborted()
      const lost = asLost(error, place.cursor !== undefined)
      useful ||= opened && performance.now() - began >= usefulAfter
      if (useful) attempt = 0
      const wait = lost.wait === 'clean' && useful ? 0 : waitAfter(lost, attempt, random())
      attempt++
      onNotice?.(`${lost.message}; ${whenNext(wait)}`)
      await delay(wait, undefined, { signal })
    }
  }
}

/** Milliseconds: what the server asked for, or twice as many with each attempt, less up to half of it by chance. */
function waitAfter({ wait }: Lost, attempt: number, chance: number): number {
  if (typeof wait === 'number') return wait
  return Math.min(longestWait, firstWait * 2 ** attempt) * (0.5 + chance / 2)
}

function whenNext(wait: number): string {
  return wait > 0 ? `trying again in ${(wait / 1000).toFixed(1)} s` : 'resuming'
}

/** Where the reader stands: everything up to here was handed out. */
interface Place {
  cursor: string | undefined
}

function asLost(error: unknown, connectedBefore: boolean): Lost {
  if (error instanceof Lost) {
    if (connectedBefore) return error
    throw new StreamEnded(error.message)
  }
  if (error instanceof Unreachable && connectedBefore) return new Lost(`lost ${error.message}`)
  if (error instanceof Refused && error.status >= 500 && connectedBefore) return new Lost(error.message)
  throw error
}

/** One connection, until it ends or is lost. Its half line, if any, is thrown away: the cursor asks for it again. */
async function* connection(options: FollowOptions, place: Place): AsyncGenerator<StreamMessage | 'open'> {
  const { remote, firstLineWithin = 10_000, nextLineWithin = 45_000 } = options
  const silence = new Silence(options.signal)
  try {
    silence.endsWithin(firstLineWithin)
    const response = await request(remote, `v1/events?${queryOf(options, place)}`, {
      headers: { accept: 'application/x-ndjson' },
      signal: silence.signal,
    })
    if (!response.headers.get('content-type')?.startsWith('application/x-ndjson') || !response.body)
      throw new StreamEnded(`${remote.url.origin} does not answer with a stream. Is it a Spillway server?`)
    const splitter = new LineSplitter(maxLine)
    for await (const bytes of response.body) {
      // Handing out may take as long as the reader likes: that is not the server's silence.
      silence.pause()
      for (const line of splitter.push(bytes)) {
        const message = understood(Buffer.from(line).toString(), place)
        if (message) yield message
      }
      silence.endsWithin(nextLineWithin)
    }
  } catch (error) {
    if (error instanceof Refused || error instanceof Lost || error instanceof StreamEnded) throw error
    if (error instanceof LineTooLong) throw new StreamEnded(error.message)
    if (silence.broken) throw new Lost(`${remote.url.origin} has been silent for ${silence.broken / 1000} s`)
    throw error instanceof Unreachable ? error : new Lost(`lost ${remote.url.origin}: ${networkReason(error)}`)
  } finally {
    silence.end()
  }
}

function queryOf({ topics, namespaces, filter, from, last }: FollowOptions, { cursor }: Place): string {
  const isByCount = cursor === undefined && last !== undefined
  const query = new URLSearchParams(isByCount ? { last: String(last) } : { from: cursor ?? from })
  for (const topic of topics) query.append('topic', topic)
  for (const namespace of namespaces) query.append('namespace', namespace)
  if (filter !== undefined) query.append('filter', filter)
  return query.toString()
}

interface Frame {
  readonly open?: { readonly cursor: string }
  readonly progress?: { readonly cursor: string }
  readonly gap?: Loss
  readonly reset?: Loss
  readonly closed?: { readonly code: string; readonly message: string; readonly retry: number | null }
  readonly index?: number
  readonly cursor?: string
}

/** What a line says to the reader; moves `place` on. */
function understood(line: string, place: Place): StreamMessage | 'open' | undefined {
  const frame = parsed(line)
  if (frame.closed) {
    const { code, message, retry } = frame.closed
    if (retry === null) throw new StreamEnded(`${code}: ${message}`)
    throw new Lost(`the server ended the stream (${code}: ${message})`, retry)
  }
  if (frame.open) {
    // On coming back it may lie behind a loss that is told next; only what was told counts.
    place.cursor ??= frame.open.cursor
    return 'open'
  }
  if (frame.progress) {
    place.cursor = frame.progress.cursor
    return undefined
  }
  const cursor = frame.cursor ?? frame.gap?.cursor ?? frame.reset?.cursor
  // A message of a later version of the protocol: nothing that this reader asked for.
  if (cursor === undefined) return undefined
  place.cursor = cursor
  return { line, value: frame as StreamMessage['value'] }
}

function parsed(line: string): Frame {
  try {
    const frame: unknown = JSON.parse(line)
    if (typeof frame === 'object' && frame !== null) return frame
  } catch {}
  throw new Lost('the stream was damaged')
}

/** Aborts a connection that says nothing for too long. */
class Silence {
  readonly #controller = new AbortController()
  readonly signal: AbortSignal
  #timer: NodeJS.Timeout | undefined
  /** The milliseconds of silence that were too many. */
  broken: number | undefined

  constructor(outer: AbortSignal | undefined) {
    this.signal = outer ? AbortSignal.any([outer, this.#controller.signal]) : this.#controller.signal
  }

  endsWithin(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.broken = ms
      this.#controller.abort()
    }, ms)
  }

  pause(): void {
    clearTimeout(this.#timer)
  }

  /** Also ends the connection, if it still stands. */
  end(): void {
    clearTimeout(this.#timer)
    this.#controller.abort()
  }
}
