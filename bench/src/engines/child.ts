import { engineConformance } from './conformance.ts'
import type { Site } from './contender.ts'
import { engineContender } from './contenders.ts'
import { engineScenarios, fill } from './scenarios.ts'

// One process does one thing with one contender: `child.js <JSON>`. Its last line is JSON.
export interface Task {
  readonly task: 'fill' | 'conform' | 'measure'
  readonly contender: string
  readonly scenario: string
  readonly site: Site
  readonly events: number
  readonly quick: boolean
}

const { task, contender: name, scenario: id, site, events, quick } = JSON.parse(process.argv[2] as string) as Task
const contender = engineContender(site.engine, name)

if (task === 'fill') {
  await fill(contender, site, events)
  console.log('{}')
} else if (task === 'conform') {
  const cannot = await engineConformance(contender, site).catch((error) => error.message)
  console.log(JSON.stringify({ cannot }))
} else {
  const scenario = engineScenarios.find((candidate) => candidate.id === id)
  if (!scenario) throw new Error(`There is no scenario "${id}".`)
  // What an engine or a contender refuses under load is a finding, and no reason to measure nothing else.
  const measured = await scenario.measure(contender, site, quick).catch(({ message }) => ({ cannot: message }))
  console.log(JSON.stringify(measured))
}
process.exit()
