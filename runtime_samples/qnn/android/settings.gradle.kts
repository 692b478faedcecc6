rootProject.name = "dq-run-libraries"

dependencyResolutionManagement {
    repositories {
        mavenCentral()
    }
}
