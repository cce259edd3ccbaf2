import { threadConformance } from './conformance.ts'
import { threadContender } from './contenders.ts'
import { threadScenarios } from './scenarios.ts'

// One process does one thing with one contender: `child.js measure|conform <scenario> <contender> quick|whole`. Its last
// line is JSON.
const [task, id, name = '', length] = process.argv.slice(2)
const contender = threadContender(name)

if (task === 'conform') {
  console.log(JSON.stringify({ cannot: await threadConformance(contender) }))
} else {
  const scenario = threadScenarios.find((candidate) => candidate.id === id)
  if (!scenario) throw new Error(`There is no scenario "${id}".`)
  console.log(JSON.stringify(await scenario.measure(contender, length === 'quick')))
}
process.exit()
