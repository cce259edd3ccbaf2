import postgres from 'postgres'
import type { EngineStore, Site } from '../contender.ts'

// As one would write it by hand, over the client's pool.

const pageLength = 256

type Sql = ReturnType<typeof postgres>

/** A transaction an event. */
export async function oneByOne(site: Site): Promise<EngineStore> {
  const { sql, store, table } = await open(site)
  return appending(store, async (text) => {
    const [row] = await sql`INSERT INTO ${table} (data) VALUES (${text}) RETURNING id`
    return Number(row?.id)
  })
}

/** The same, and it gives each event as what its JSON says. */
export async function parsing(site: Site): Promise<EngineStore> {
  const store = await oneByOne(site)
  return { ...store, replay: (take) => store.replay((text, place) => take(JSON.parse(text as string), place)) }
}

/** A transaction an event, and readers get each one with its notification: those come in the order of commits, which ids do not. */
export async function notifying(site: Site): Promise<EngineStore> {
  const { sql, store, table } = await open(site)
  const append = async (text: string) => {
    const [row] = await sql`WITH added AS (INSERT INTO ${table} (data) VALUES (${text}) RETURNING id)
      SELECT id, pg_notify(${site.stream}, ${text}) FROM added`
    return Number(row?.id)
  }
  const follow = async (take: (text: string) => void) => {
    await sql.listen(site.stream, take)
  }
  return { ...appending(store, append), follow }
}

/** A statement a group. */
export async function inGroups(site: Site): Promise<EngineStore> {
  const { sql, store, table } = await open(site)
  return {
    ...store,
    async append(texts) {
      const rows = await sql`INSERT INTO ${table} (data) SELECT unnest(${[...texts]}::text[]) RETURNING id`
      return rows.map(({ id }) => Number(id))
    },
  }
}

function appending(store: Omit<EngineStore, 'append'>, append: (text: string) => Promise<number>): EngineStore {
  return { ...store, append: (texts) => Promise.all(texts.map(append)) }
}

async function open({ urls, stream }: Site): Promise<{
  readonly sql: Sql
  readonly table: postgres.Helper<string, []>
  readonly store: Omit<EngineStore, 'append'>
}> {
  const sql = postgres(urls[0] as string, { onnotice: () => {} })
  const table = sql(stream)
  await sql.begin(async (tx) => {
    // Two that make it at once would be in each other's way.
    await tx`SELECT pg_advisory_xact_lock(1)`
    await tx`CREATE TABLE IF NOT EXISTS ${table} (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data text NOT NULL
    )`
  })
  const store = {
    async replay(take: (event: unknown, place: number) => void) {
      for (let at = 0; ; ) {
        const rows = await sql`SELECT id, data FROM ${table} WHERE id > ${at} ORDER BY id LIMIT ${pageLength}`
        for (const { id, data } of rows) {
          at = Number(id)
          take(data, at)
        }
        if (rows.length === 0) return
      }
    },
    close: () => sql.end({ timeout: 5 }),
  }
  return { sql, table, store }
}
