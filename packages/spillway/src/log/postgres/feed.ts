import type { StoredBatch } from '../../core/event.ts'
import { Followers } from '../../core/followers.ts'
import type { LogNews, RightsChange } from '../../core/log.ts'
import { isGone } from './client.ts'
import type { Database, NumberedChange, Rows, Standing } from './database.ts'

export interface FeedOptions {
  readonly database: Database
  readonly epoch: string
  /** What this server calls itself: it hears its own changes of rights at once, and not again. */
  readonly writer: string
  /** How long the batches of others are waited for before they are told as missed, in milliseconds. */
  readonly patience: number
  /** The history was replaced, or has lost batches that were told. */
  readonly ended: () => void
}

/** Batches that this server has stored, at their place in the history. */
export interface Stored {
  /** The newest index, and the number of changes of rights, before them. */
  readonly base: number
  readonly changes: number
  readonly batches: readonly StoredBatch[]
  /** Of the last of them. */
  readonly mark: string
}

interface Waiting extends Stored {
  readonly end: number
  resolve(): void
}

const pageLength = 256
const firstPause = 50
const longestPause = 1000

/**
 * What followers in this process are told: every batch once, in the order of the indexes, whoever stored it; changes of
 * rights between the batches where they happened. The truth is what it reads after the last index that it told; a
 * notification only says when to look. What this server has stored itself it need not read, once all before it was told.
 */
export class Feed {
  readonly #options: FeedOptions
  readonly #followers = new Followers()
  readonly #news = new Set<LogNews>()
  #told: number
  #floor: number
  /** The number of the last change of rights that was told. */
  #heard: number
  /** Of the batch that was told last: that it is still the same shows that the history is. */
  #mark: string | undefined
  #waiting: Waiting[] = []
  /** Statements of this server that store something now: what they have stored need not be read. */
  #storing = 0
  #newest: number
  #newestChange: number
  #isWanted = false
  #isReading = false
  #failingSince: number | undefined
  #wake: (() => void) | undefined
  #catchingUp: Promise<void> | undefined
  #lookingUp: Promise<void> = Promise.resolve()
  #isOver = false

  constructor(options: FeedOptions, { floor, last, changes }: Standing) {
    this.#options = options
    this.#floor = floor
    this.#told = this.#newest = last
    this.#heard = this.#newestChange = changes
  }

  /** The newest index that followers were told of. */
  get told(): number {
    return this.#told
  }

  get floor(): number {
    return Math.min(this.#floor, this.#told)
  }

  follow(listener: (batch: StoredBatch) => void, news?: LogNews): () => void {
    const stop = this.#followers.add(listener, this.#told)
    if (news) this.#news.add(news)
    return () => {
      stop()
      if (news) this.#news.delete(news)
    }
  }

  /** Told at once, by whoever makes it. */
  heed({ subject, isRevoked }: RightsChange): void {
    for (const news of this.#news) news.rights({ subject, isRevoked })
  }

  /** Somebody says how far the history goes. */
  hint(last: number, changes: number): void {
    this.#newest = Math.max(this.#newest, last)
    this.#newestChange = Math.max(this.#newestChange, changes)
    // What a read that runs finds may be all of it.
    if (!this.#isReading && this.#mustRead) this.look()
  }

  /** Reads what is new, if anything is. */
  look(): void {
    if (this.#isOver) return
    this.#isWanted = true
    if (!this.#isReading) void this.#read()
  }

  /** Waits with what notifications say until `storing` has ended: most of it is what that has stored. */
  async whileStoring<T>(storing: Promise<T>): Promise<T> {
    this.#storing++
    try {
      return await storing
    } catch (error) {
      this.look()
      throw error
    } finally {
      this.#storing--
    }
  }

  /** Resolves when followers were told of `stored`, and of all before. */
  tell(stored: Stored, floor: number): Promise<void> {
    this.trimmed(floor)
    const end = stored.batches.at(-1)?.index ?? stored.base
    const done = new Promise<void>((resolve) => this.#waiting.push({ ...stored, end, resolve }))
    this.#settle()
    this.hint(end, stored.changes)
    return done
  }

  /** What is not kept any more. */
  trimmed(floor: number): void {
    this.#floor = Math.max(this.#floor, floor)
  }

  /** Resolves when followers were told of everything up to `index`. */
  reach(index: number): Promise<void> {
    return this.tell({ base: index, changes: 0, batches: [], mark: '' }, 0)
  }

  /** Resolves when followers were told of all that is stored by now. */
  catchUp(): Promise<void> {
    // Many may ask at once, and what is being looked up for another may be older than this.
    this.#catchingUp ??= this.#lookingUp.then(async () => {
      this.#catchingUp = undefined
      const standing = this.#lookUp()
      this.#lookingUp = standing.catch(() => {})
      await standing
    })
    return this.#catchingUp
  }

  /** Tells nothing more. */
  close(): void {
    this.#isOver = true
    this.#wake?.()
    // It is stored all the same.
    for (const { resolve } of this.#waiting.splice(0)) resolve()
  }

  /** Followers are told that nothing comes any more. */
  end(): void {
    if (this.#isOver) return
    this.close()
    this.#options.ended()
    for (const news of this.#news) news.ended()
  }

  async #lookUp(): Promise<void> {
    const page = await this.#options.database.read(this.#told, this.#told, 1)
    if (!page || this.#isOver) return
    this.hint(page.last, page.changes)
    await this.reach(page.last)
  }

  get #mustRead(): boolean {
    return this.#storing === 0 && (this.#newest > this.#told || this.#newestChange > this.#heard)
  }

  async #read(): Promise<void> {
    this.#isReading = true
    while ((this.#isWanted || this.#mustRead) && !this.#isOver) {
      this.#isWanted = false
      try {
        while (await this.#readPage());
        this.#failingSince = undefined
      } catch (error) {
        await this.#failed(error)
      }
    }
    this.#isReading = false
  }

  /** Reads one page and tells it. Whether there is more. */
  async #readPage(): Promise<boolean> {
    if (this.#isOver) return false
    const { database, epoch } = this.#options
    const anchor = this.#told
    const mark = this.#mark
    const next = this.#waiting[0]
    const upTo = next && next.base > anchor ? next.base : Number.MAX_SAFE_INTEGER
    // What was said so far is found now, or was not true.
    this.#newest = anchor
    this.#newestChange = this.#heard
    const page = await database.read(anchor, upTo, pageLength, anchor)
    if (this.#isOver) return false
    if (page?.epoch !== epoch) {
      this.end()
      return false
    }
    // Batches that were told are there no more, or others are in their place: what was acknowledged is lost.
    if (page.last < anchor || (mark !== undefined && page.anchor !== undefined && page.anchor !== mark)) {
      await database.renew()
      this.end()
      return false
    }
    const changes = page.changes > this.#heard ? await database.changes(this.#heard, page.changes) : []
    if (this.#isOver) return false
    this.#tellPage(page, Math.min(page.last, upTo), changes)
    this.#settle()
    return page.last > this.#told
  }

  /** `upTo`: without rows, nothing is there up to this index. */
  #tellPage({ floor, last, rows, changes: newestChange }: Rows, upTo: number, changes: NumberedChange[]): void {
    const nextChange = changes[0]?.n ?? newestChange + 1
    if (nextChange > this.#heard + 1) {
      // Those between are forgotten already.
      this.heed({ subject: undefined, isRevoked: false })
      this.#heard = nextChange - 1
    }
    if (floor > this.#told) this.#miss(floor)
    for (const { batch, previous, mark } of rows) {
      if (batch.index <= this.#told) continue
      this.#heedUpTo(batch.index - 1, changes)
      if (previous > this.#told) this.#miss(batch.index - 1)
      this.#told = batch.index
      this.#mark = mark
      this.#followers.tell([batch])
    }
    if (rows.length === 0 && upTo > this.#told) this.#miss(upTo)
    this.#heedUpTo(this.#told, changes)
    this.#floor = Math.max(this.#floor, floor)
    this.#newest = Math.max(this.#newest, last)
    this.#newestChange = Math.max(this.#newestChange, newestChange)
  }

  #heedUpTo(index: number, changes: NumberedChange[]): void {
    for (let next = changes[0]; next && next.after <= index; next = changes[0]) {
      changes.shift()
      if (next.n <= this.#heard) continue
      this.#heard = next.n
      if (next.writer !== this.#options.writer) this.heed(next)
    }
  }

  /** What was missed may have said that rights have changed, which counts for what comes after it. */
  #miss(upTo: number): void {
    this.heed({ subject: undefined, isRevoked: false })
    this.#told = upTo
    this.#mark = undefined
    for (const news of this.#news) news.missed(upTo)
  }

  /** Tells what this server has stored itself, as far as all before it was told. */
  #settle(): void {
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      if (next.base === this.#told && next.changes <= this.#heard) {
        this.#told = next.end
        if (next.batches.length > 0) this.#mark = next.mark
        this.#followers.tell(next.batches)
      }
      if (this.#told < next.end) return
      this.#waiting.shift()
      next.resolve()
    }
  }

  async #failed(error: unknown): Promise<void> {
    const { patience } = this.#options
    if (isGone(error)) {
      this.end()
      return
    }
    this.#failingSince ??= performance.now()
    const [next] = this.#waiting
    // It is stored, and whoever published it waits.
    if (next && performance.now() - this.#failingSince > patience) {
      if (next.base > this.#told) this.#miss(next.base)
      this.#settle()
    }
    this.#isWanted = true
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#pause())
      // Only for somebody who waits.
      if (this.#waiting.length === 0) timer.unref()
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#wake = undefined
  }

  #pause(): number {
    const failing = performance.now() - (this.#failingSince ?? 0)
    return Math.min(Math.max(failing / 2, firstPause), longestPause)
  }
}
