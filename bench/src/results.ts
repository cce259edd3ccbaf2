import { existsSync, readFileSync } from 'node:fs'
import os from 'node:os'
import type { PartId } from './part.ts'
import type { Unit } from './scenario.ts'
import { median, type Spread, spread } from './stats.ts'

/** Where and when. */
export interface Machine {
  readonly kind: 'machine'
  readonly part: PartId
  readonly date: string
  readonly cpu: string
  readonly cores: number
  readonly memory: number
  readonly system: string
  readonly node: string
  readonly packages: Readonly<Record<string, string>>
  readonly rounds: number
  readonly quick: boolean
}

export interface ScenarioRecord {
  readonly kind: 'scenario'
  readonly id: string
  readonly title: string
  readonly unit: Unit
  /** More is better. */
  readonly more?: boolean
  /** Which of the samples' extras belong beside the value. */
  readonly shows?: readonly string[]
}

/** A contender that does not do what a scenario needs, and why. */
export interface CannotRecord {
  readonly kind: 'cannot'
  readonly scenario: string
  readonly contender: string
  readonly reason: string
}

export interface SampleRecord {
  readonly kind: 'sample'
  readonly round: number
  readonly scenario: string
  readonly contender: string
  readonly role: 'ours' | 'peer' | 'floor'
  readonly value: number
  readonly extra?: Readonly<Record<string, number | string>>
}

/** How busy the machine was when a round ended, this benchmark included: the load average over one minute. */
export interface RoundRecord {
  readonly kind: 'round'
  readonly round: number
  readonly load: number
}

/** Measurements that were not made because the time was over, if there are any. */
export interface LeftOutRecord {
  readonly kind: 'leftOut'
  readonly count: number
}

/** A line of a result file. */
export type ResultRecord = Machine | ScenarioRecord | CannotRecord | SampleRecord | RoundRecord | LeftOutRecord

/** What a contender reached in a scenario, with the medians of what else is shown. */
export interface Row {
  readonly contender: string
  readonly role: SampleRecord['role']
  readonly spread: Spread
  readonly shown: readonly number[]
}

/** The records of one run, ready to be asked. */
export class Results {
  readonly machine: Machine
  readonly scenarios: readonly ScenarioRecord[]
  /** Load averages at the ends of the rounds. */
  readonly load: Spread
  readonly leftOut: number
  readonly #cannot: readonly CannotRecord[]
  readonly #samples = new Map<string, SampleRecord[]>()

  constructor(records: readonly ResultRecord[]) {
    const machine = records.find((record) => record.kind === 'machine')
    if (!machine) throw new Error('The result file has no line about the machine.')
    this.machine = machine
    this.scenarios = records.filter((record) => record.kind === 'scenario')
    this.load = spread(records.filter((record) => record.kind === 'round').map(({ load }) => load))
    this.leftOut = records.find((record) => record.kind === 'leftOut')?.count ?? 0
    this.#cannot = records.filter((record) => record.kind === 'cannot')
    for (const record of records) {
      if (record.kind !== 'sample') continue
      const key = keyOf(record.scenario, record.contender)
      const known = this.#samples.get(key)
      if (known) known.push(record)
      else this.#samples.set(key, [record])
    }
  }

  cannot(scenario: string): readonly CannotRecord[] {
    return this.#cannot.filter((record) => record.scenario === scenario)
  }

  /** The contenders of a scenario with what they reached, the best first. */
  rows(scenario: string): readonly Row[] {
    const { more = false, shows = [] } = this.scenarios.find(({ id }) => id === scenario) ?? {}
    return [...this.#samples.values()]
      .filter(([first]) => first?.scenario === scenario)
      .map((samples) => {
        const { contender, role } = samples[0] as SampleRecord
        const shown = shows.map((name) => median(samples.map(({ extra }) => Number(extra?.[name]))))
        return { contender, role, spread: spread(samples.map(({ value }) => value)), shown }
      })
      .sort((a, b) => (a.spread.median - b.spread.median) * (more ? -1 : 1))
  }

  samples(scenario: string, contender: string): readonly SampleRecord[] {
    return this.#samples.get(keyOf(scenario, contender)) ?? []
  }
}

const keyOf = (scenario: string, contender: string): string => `${scenario}\n${contender}`

export function parseResults(text: string): Results {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  return new Results(lines.map((line) => JSON.parse(line) as ResultRecord))
}

export function describeRound(round: number): RoundRecord {
  return { kind: 'round', round, load: os.loadavg()[0] ?? 0 }
}

export function describeMachine(
  part: Machine['part'],
  packages: Machine['packages'],
  rounds: number,
  quick: boolean,
): Machine {
  const cpus = os.cpus()
  return {
    kind: 'machine',
    part,
    date: new Date().toISOString(),
    cpu: cpus[0]?.model ?? 'unknown',
    cores: cpus.length,
    memory: os.totalmem(),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.versions.node,
    packages,
    rounds,
    quick,
  }
}

/** The version of an installed package. */
export function packageVersion(name: string): string {
  // The workspace has a folder of its own for what the others have in another version.
  const files = ['../node_modules/', '../../node_modules/'].map((folder) => {
    return new URL(`${folder}${name}/package.json`, import.meta.url)
  })
  const file = files.find((candidate) => existsSync(candidate))
  return file ? JSON.parse(readFileSync(file, 'utf8')).version : 'unknown'
}
