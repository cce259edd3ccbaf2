import { execFile } from 'node:child_process'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { jetstreamManager } from '@nats-io/jetstream'
import { natsPrograms, postgresProgram, startNats, startNatsCluster, startPostgres } from '@spillway/engines'
import { fileSystem } from '../disk/part.ts'
import type { Part } from '../part.ts'
import { packageVersion } from '../results.ts'
import type { Measured } from '../scenario.ts'
import type { Task } from './child.ts'
import type { EngineId, Site } from './contender.ts'
import { connectTo } from './contenders/connect.ts'
import { engineContender } from './contenders.ts'
import type { EngineScenario } from './scenario.ts'
import { engineScenarios, quickEvents } from './scenarios.ts'

const child = fileURLToPath(new URL('child.js', import.meta.url))
/** A process that takes longer than this hangs. */
const timeout = 180_000

interface RunningEngine {
  readonly urls: readonly string[]
  /** Of what a measurement had for itself. */
  remove(stream: string): Promise<void>
  stop(): Promise<void>
}

const running = new Map<EngineId, Promise<RunningEngine>>()
const filled = new Map<string, Promise<string>>()
let streams = 0

/** Part E: the log in an engine, a process per contender, scenario and round, and a stream or table of its own. */
export const inEngines: Part = {
  id: 'e',
  title: 'In engines',
  rounds: 5,
  roundSeconds: 100,
  scenarios: engineScenarios,
  versions: async () => ({
    spillway: packageVersion('spillway'),
    'nats-server': natsPrograms()[0]?.version ?? 'missing',
    '@nats-io/jetstream': packageVersion('@nats-io/jetstream'),
    PostgreSQL: await postgresVersion(),
    postgres: packageVersion('postgres'),
    'file system': fileSystem(tmpdir()),
  }),
  roleOf: async (contender) => roleOf(contender),
  question: (id, contender) => `${contender} with ${scenarioOf(id).engine}`,
  async ask(id, contender) {
    const { engine } = scenarioOf(id)
    return (await whyNot(engine)) ?? (await inChild<{ cannot?: string }>({ task: 'conform', contender }, engine)).cannot
  },
  async measure(id, name, quick) {
    const { engine, events } = scenarioOf(id)
    const { sharesWith = name } = engineContender(engine, name)
    const stream = events && (await filledBy(engine, sharesWith, quick ? quickEvents(events) : events))
    return inChild<Measured | { cannot: string }>(
      { task: 'measure', scenario: id, contender: name, quick, ...(stream && { stream }) },
      engine,
    )
  },
  async finish() {
    for (const engine of running.values()) await (await engine).stop()
    running.clear()
    filled.clear()
  },
}

function scenarioOf(id: string): EngineScenario {
  const found = engineScenarios.find((scenario) => scenario.id === id)
  if (!found) throw new Error(`There is no scenario "${id}".`)
  return found
}

/** The same with each engine. */
function roleOf(contender: string): 'ours' | 'peer' | 'floor' {
  const scenario = engineScenarios.find(({ contenders }) => contenders.includes(contender))
  return engineContender(scenario?.engine ?? 'r1', contender).role
}

async function whyNot(engine: EngineId): Promise<string | undefined> {
  if (engine === 'pg') return postgresProgram() ? undefined : 'there is no PostgreSQL on this machine'
  return natsPrograms().length > 0 ? undefined : 'there is no nats-server on this machine'
}

async function postgresVersion(): Promise<string> {
  const program = postgresProgram()
  if (!program) return 'missing'
  const { stdout } = await promisify(execFile)(program, ['--version'])
  return /\d+\.\d+/.exec(stdout)?.[0] ?? 'unknown'
}

/** Started once and used by all, each with a stream of its own. */
function engineOf(id: EngineId): Promise<RunningEngine> {
  const engine = running.get(id) ?? start(id)
  running.set(id, engine)
  return engine
}

async function start(id: EngineId): Promise<RunningEngine> {
  if (id === 'r3') {
    const { urls, stop } = await startNatsCluster({ canBeCut: false })
    return { urls, remove: (stream) => removeStream(urls[0] as string, stream), stop }
  }
  if (id === 'pg') {
    const { url, remove } = await startPostgres()
    // Tables are in nobody's way.
    return { urls: [url], remove: async () => {}, stop: remove }
  }
  const { url, remove } = await startNats()
  return { urls: [url], remove: (stream) => removeStream(url, stream), stop: remove }
}

/** The engine sets aside for each stream as much as that may hold. */
async function removeStream(url: string, stream: string): Promise<void> {
  const connection = await connectTo(url)
  await (await jetstreamManager(connection)).streams.delete(stream)
  await connection.close()
}

/** A stream with `events` events of a contender, made once: nobody who measures with it adds to it. */
function filledBy(engine: EngineId, contender: string, events: number): Promise<string> {
  const key = `${engine} ${contender} ${events}`
  const stream =
    filled.get(key) ??
    (async () => {
      const name = newName()
      await inChild({ task: 'fill', contender, events, stream: name }, engine)
      return name
    })()
  filled.set(key, stream)
  return stream
}

const newName = () => `bench_${++streams}`

type Request = Pick<Task, 'task' | 'contender'> & Partial<Task> & { readonly stream?: string }

async function inChild<Answer>({ stream, ...request }: Request, engine: EngineId): Promise<Answer> {
  const { urls, remove } = await engineOf(engine)
  const site: Site = { engine, urls, stream: stream ?? newName() }
  const task: Task = { scenario: '', events: 0, quick: false, ...request, site }
  const flags = process.env.BENCH_SERVER_FLAGS?.split(' ').filter(Boolean) ?? []
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, child, JSON.stringify(task)], { timeout })
  if (!stream) await remove(site.stream)
  const answer = stdout.trim().split('\n').at(-1)
  if (!answer) throw new Error(`${JSON.stringify(task)}: the process ended without an answer.`)
  return JSON.parse(answer)
}
