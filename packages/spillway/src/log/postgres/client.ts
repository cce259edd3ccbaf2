import { SpillwayError } from '../../core/errors.ts'

/** What is used of a client's transaction: that of `postgres`, inside `sql.begin`, has it. */
export interface PostgresTransaction {
  unsafe(query: string, parameters?: (string | null)[], options?: { prepare?: boolean }): PostgresQuery
}

/** A statement on its way. */
export interface PostgresQuery {
  /** Its rows, each as an array of its columns. */
  values(): PromiseLike<readonly (readonly unknown[])[]>
}

/** What is used of a client: `postgres()` of the package `postgres` gives one. */
export interface PostgresClient extends PostgresTransaction {
  begin(options: string, run: (tx: PostgresTransaction) => Promise<unknown>): PromiseLike<unknown>
  listen(
    channel: string,
    onNotify: (payload: string) => void,
    onListen?: () => void,
  ): PromiseLike<{ unlisten(): PromiseLike<unknown> }>
}

/** Columns as text: what a client makes of other types is its owner's business. */
export type TextRow = readonly (string | null)[]

/** Runs one statement, which is prepared once for each connection where the client allows it. */
export function rowsOf(
  client: PostgresTransaction,
  query: string,
  parameters: (string | null)[] = [],
): Promise<readonly TextRow[]> {
  return new Promise((resolve, reject) => {
    client
      .unsafe(query, parameters, { prepare: true })
      .values()
      .then(
        (rows) => resolve((rows as TextRow[]).splice(0)),
        (error: unknown) => {
          if (failureOf(error) === 'refused') reject(error)
          // `postgres` 3.4.9 forgets what it is given between a socket's error and its close, and that connection with it.
          else setImmediate(() => setImmediate(() => reject(error)))
        },
      )
  })
}

/**
 * What `asked` comes to. Rejects if that takes more than `ms` milliseconds: a client tries for ever to connect where somebody
 * accepts connections and ends them, and waits for ever for an answer that got lost.
 */
export function within<T>(ms: number, asked: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`The database did not answer for ${ms} ms.`))
    const timer = setTimeout(late, ms)
    asked.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

/**
 * What an error says of its statement. `refused`: the server did not carry it out. `absent`: it never got there.
 * `unknown`: the connection ended, and nobody knows what became of it.
 */
export type Failure = 'refused' | 'absent' | 'unknown'

/** What is told of an error that a client threw. */
export interface PostgresFault {
  /** SQLSTATE, or the code of a socket or the client. */
  readonly code?: string
  readonly severity?: string
  readonly constraint_name?: string
  readonly message: string
  readonly hint?: string
}

/** No connection came about: sockets, the client, and what the server says before it lets anybody in. */
const noConnection = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOENT'])
const noEntry = /^(57P03|53300|28...|3D000|CONNECT_TIMEOUT|CONNECTION_ENDED)$/

export function failureOf(error: unknown): Failure {
  const { code = '', severity } = error as PostgresFault
  if (severity === 'ERROR') return 'refused'
  return noConnection.has(code) || noEntry.test(code) ? 'absent' : 'unknown'
}

/** What our own functions throw, as SQLSTATE. */
export const thrown = {
  /** The history is another one. */
  replaced: 'SPW01',
  /** The newest index is below one that was seen. */
  shrunk: 'SPW02',
  /** The database does not give the level of durability any more. */
  level: 'SPW03',
  /** Its asker has given it up. */
  abandoned: 'SPW04',
} as const

/** Undefined table, function or schema: somebody dropped the log. */
const missing = new Set(['42P01', '42883', '3F000'])

/** Whether the history that was opened is there no more. */
export function isGone(error: unknown): boolean {
  const { code = '' } = error as PostgresFault
  return code === thrown.replaced || code === thrown.shrunk || missing.has(code)
}

/**
 * Two transactions were in each other's way: the same again, at once. Where `default_transaction_isolation` is "repeatable
 * read", one that waited for another one's lock does not see what that stored, and gives out an index a second time. Other
 * constraints than those of the log `name` are the application's, and refuse the same again for ever.
 */
export function isCollision(error: unknown, name: string): boolean {
  const { code = '', constraint_name: constraint = '' } = error as PostgresFault
  if (code !== '23505') return code === '40001' || code === '40P01'
  return new RegExp(`^${name}_(batches_pkey|keys_pkey|keys_key_key)\\d*$`).test(constraint)
}

/** An error of a client as ours, for what was tried when a log is opened: `LOG_UNUSABLE`. */
export function unusable(error: unknown, what: string): SpillwayError {
  if (error instanceof SpillwayError) return error
  return new SpillwayError('LOG_UNUSABLE', `${what}: ${said(error)}.`, { cause: error })
}

/** An error's message without its full stop, and the hint that came with it. */
export function said(error: unknown): string {
  const { message, hint, code } = error as PostgresFault
  const text = (message || code || String(error)).replace(/\.$/, '')
  return hint ? `${text} (${hint.replace(/\.$/, '')})` : text
}
